//! What `serve --standalone` tells a person at its start: addresses, password, and what to try.

use std::io::Write as _;
use std::net::SocketAddr;

use crate::error::{Error, Result};
use crate::gateway::server::Port;
use crate::process::standalone::Standalone;

/// Prints to the standard output. Every command works as printed. Without a TCP port without TLS there is nothing to try.
pub(super) fn print(standalone: &Standalone, ports: &[Port], frontend: SocketAddr) -> Result<()> {
    let plain = ports.iter().find(|port| port.tls.is_none()).and_then(|port| port.socket.address());
    let Some(api) = plain else { return Ok(()) };
    let password = standalone.password();
    let shown = match &password {
        Some(password) => format!("{password}   (kept in {})", standalone.password_file.display()),
        None => "as set in the userlist `controller`".to_owned(),
    };
    let user = format!("admin:{}", password.as_deref().unwrap_or("PASSWORD"));
    let grpcurl = grpcurl();
    let v2 = format!("http://{api}/v2/services/haproxy");
    // `authorization: Basic` wants base64, which grpcurl does not make of a name and a password.
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &user);
    let header = format!("-H 'authorization: Basic {basic}'");
    let text = format!(
        "
backstay serves gRPC, gRPC-web and REST on {api}
  file      {file}
  haproxy   http://{frontend}/
  docs      http://{api}/v2/docs
  user      admin
  password  {shown}

Try next, in another terminal:
  curl -s http://{frontend}/hello
  curl -s -u {user} {v2}/configuration/backends
  {grpcurl} -plaintext {header} {api} list
  {grpcurl} -plaintext {header} -d '{{\"map\":\"paths.map\",\"entry\":{{\"key\":\"/api/\",\"value\":\"status\"}}}}' {api} backstay.runtime.v2.MapEntryService/CreateMapEntry
  {grpcurl} -plaintext {header} -d '{{\"stick_table\":\"clients\"}}' {api} backstay.runtime.v2.StickTableService/WatchStickTable

Ctrl-C stops backstay and its haproxy.
",
        file = standalone.config_file.display(),
    );
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::internal)
}

/// The grpcurl that `make run` has brought, else the one in the path.
fn grpcurl() -> String {
    let brought = std::path::Path::new(".cache/bin/grpcurl");
    if brought.is_file() { format!("./{}", brought.display()) } else { "grpcurl".to_owned() }
}
