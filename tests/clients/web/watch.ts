// Follows stick tables by gRPC-web: shows each event as a line of JSON, and tells the page's own server of it.
// The server hands out the page and `settings.json`; its origin has to be one of backstay's `--cors-origin`.

import { toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { StickTableService, WatchStickTableResponseSchema } from "./gen/backstay/runtime/v2/stick_table_pb";

interface Settings {
  api: string;
  user: string;
  password: string;
  tables: string[];
}

const settings: Settings = await (await fetch("settings.json")).json();

// A user and a password on every call.
const basic: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Basic ${btoa(`${settings.user}:${settings.password}`)}`);
  return next(request);
};
const client = createClient(
  StickTableService,
  createGrpcWebTransport({ baseUrl: settings.api, interceptors: [basic] }),
);

async function tell(table: string, line: object): Promise<void> {
  const text = JSON.stringify(line);
  document.querySelector("#events")!.append(`${table} ${text}\n`);
  await fetch(`events?${table}`, { method: "POST", body: text });
}

// A watch stays open through reloads of HAProxy. Where it ends all the same, such as by a restart of backstay, the last
// token resumes it: what changed meanwhile follows, or a snapshot.
async function follow(stickTable: string): Promise<void> {
  for (let resumeToken = ""; ; ) {
    try {
      for await (const event of client.watchStickTable({ stickTable, resumeToken })) {
        resumeToken = event.resumeToken;
        await tell(stickTable, toJson(WatchStickTableResponseSchema, event, { useProtoFieldName: true }) as object);
      }
    } catch (reason) {
      const error = ConnectError.from(reason);
      // A connection that breaks is an error without a code.
      if (error.code !== Code.Unavailable && error.code !== Code.Unknown) {
        return tell(stickTable, { error: Code[error.code], message: error.rawMessage });
      }
    }
    await new Promise((resume) => setTimeout(resume, 1000));
  }
}

await Promise.all(settings.tables.map(follow));
