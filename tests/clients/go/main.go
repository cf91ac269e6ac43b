// Follows a stick table: prints a line of JSON for each event, for ever or until -events or -time is reached.
// The password comes from BACKSTAY_PASSWORD.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	runtime "example.com/watch/gen/backstay/runtime/v2"
)

// basic signs every call with a user and a password. Without TLS only use it on the loopback.
type basic struct{ user, password string }

func (b basic) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	pair := base64.StdEncoding.EncodeToString([]byte(b.user + ":" + b.password))
	return map[string]string{"authorization": "Basic " + pair}, nil
}

func (basic) RequireTransportSecurity() bool { return false }

func main() {
	api := flag.String("api", "127.0.0.1:5555", "where backstay serves")
	user := flag.String("user", "admin", "user of the API")
	table := flag.String("table", "clients", "stick table to follow")
	events := flag.Int("events", 0, "end after this many events, 0 for never")
	limit := flag.Duration("time", 0, "end after this time, 0 for never")
	flag.Parse()

	ctx := context.Background()
	if *limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *limit)
		defer cancel()
	}
	connection, err := grpc.NewClient(*api,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(basic{*user, os.Getenv("BACKSTAY_PASSWORD")}))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	tables := runtime.NewStickTableServiceClient(connection)

	// A watch stays open through reloads of HAProxy. Where it ends all the same, such as by a restart of backstay, the
	// last token resumes it: what changed meanwhile follows, or a snapshot.
	request := &runtime.WatchStickTableRequest{StickTable: *table}
	for seen := 0; ; {
		err := follow(ctx, tables, request, func(event *runtime.WatchStickTableResponse) bool {
			line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(event)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(string(line))
			seen++
			return seen != *events
		})
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case errors.Is(err, io.EOF) || status.Code(err) == codes.Unavailable:
			log.Printf("%v; trying again", err)
			time.Sleep(time.Second)
		default:
			log.Fatalf("%s: %v", reason(err), err)
		}
	}
}

// follow hands out events until one of them is not wanted, which is no error, and keeps the token of the last one.
func follow(ctx context.Context, tables runtime.StickTableServiceClient, request *runtime.WatchStickTableRequest,
	wanted func(*runtime.WatchStickTableResponse) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := tables.WatchStickTable(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return err
		}
		request.ResumeToken = event.ResumeToken
		if !wanted(event) {
			return nil
		}
	}
}

// reason is the name of an error, which never changes: OBJECT_NOT_FOUND and the like.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return status.Code(err).String()
}
