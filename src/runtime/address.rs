//! Where a stats socket listens, as the `stats socket` line of the global section writes it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Error, Reason, Result};

/// Longest name of a socket in the abstract namespace, in bytes.
const NAME: usize = 107;

/// The address of a stats socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A unix stream socket. The path of one in the abstract namespace begins with a zero byte.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `/path`, `unix@/path`, `abns@name`, `abnsz@name`, `ipv4@host:port`, `ipv6@[host]:port`, `ipv6@host:port` or `host:port`.
    ///
    /// `INVALID_VALUE` for anything else: file descriptors, names that need resolving.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |expected: &str| {
            let message = format!("stats socket address '{text}': expected {expected}");
            Err(Error::new(Reason::InvalidValue, message))
        };
        // HAProxy pads the name with zero bytes to the whole address, but for `abnsz`.
        let padded = text.strip_prefix("abns@").map(|name| format!("\0{name:\0<NAME$}"));
        let name = padded.or_else(|| text.strip_prefix("abnsz@").map(|name| format!("\0{name}")));
        if let Some(name) = name.filter(|name| name.len() <= NAME + 1 && !name.trim_matches('\0').is_empty()) {
            return Ok(Address::Unix(PathBuf::from(name)));
        }
        let unix = text.strip_prefix("unix@").unwrap_or(text);
        if unix.starts_with('/') {
            return Ok(Address::Unix(PathBuf::from(unix)));
        }
        let (tcp, v6) = match (text.strip_prefix("ipv4@"), text.strip_prefix("ipv6@")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => (text, false),
        };
        // HAProxy takes the last colon as the start of the port, with or without brackets around an IPv6 address, and
        // `*` or nothing as "all addresses", which this host reaches over loopback.
        let Some((host, port)) = tcp.rsplit_once(':') else {
            return refuse("an absolute path or an address with a port");
        };
        let host = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "*" | "0.0.0.0" if !v6 => "127.0.0.1",
            "" | "*" | "::" => "::1",
            other => other,
        };
        match (host.parse(), port.parse()) {
            (Ok(ip), Ok(port)) => Ok(Address::Tcp(SocketAddr::new(ip, port))),
            _ => refuse("an absolute path or a numeric address with a port"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => match path.to_str().and_then(|path| path.strip_prefix('\0')) {
                Some(name) if name.len() == NAME => write!(f, "abns@{}", name.trim_end_matches('\0')),
                Some(name) => write!(f, "abnsz@{name}"),
                None => path.display().fmt(f),
            },
            Address::Tcp(SocketAddr::V4(address)) => write!(f, "ipv4@{address}"),
            Address::Tcp(SocketAddr::V6(address)) => write!(f, "ipv6@{address}"),
        }
    }
}

impl Address {
    /// Whether it is certainly one of this machine, whose clock is ours.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp(address) => address.ip().is_loopback(),
        }
    }

    /// Opens a connection. The caller limits the time.
    pub async fn connect(&self) -> io::Result<Socket> {
        Ok(match self {
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        })
    }
}

/// An open connection to a stats socket.
#[derive(Debug)]
pub enum Socket {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Socket {
    /// Writes everything.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.write_all(bytes).await,
            Socket::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    /// Appends what has arrived to `buffer`; 0 at the end of the stream.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read_buf(buffer).await,
            Socket::Tcp(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Whether an idle connection is still usable: the other end has neither closed it nor sent anything unasked.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let result = match self {
            Socket::Unix(stream) => stream.try_read(&mut byte),
            Socket::Tcp(stream) => stream.try_read(&mut byte),
        };
        matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_haproxy_writes_them() {
        for (text, shown) in [
            ("/run/haproxy.sock", "/run/haproxy.sock"),
            ("unix@/run/haproxy.sock", "/run/haproxy.sock"),
            ("ipv4@127.0.0.1:9999", "ipv4@127.0.0.1:9999"),
            ("10.0.0.1:9999", "ipv4@10.0.0.1:9999"),
            ("*:9999", "ipv4@127.0.0.1:9999"),
            (":9999", "ipv4@127.0.0.1:9999"),
            ("ipv6@::1:9999", "ipv6@[::1]:9999"),
            ("ipv6@[fe80::2]:9", "ipv6@[fe80::2]:9"),
            ("ipv6@:9", "ipv6@[::1]:9"),
            ("abns@haproxy", "abns@haproxy"),
            ("abnsz@haproxy", "abnsz@haproxy"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_their_text() {
        for text in ["", "relative.sock", "fd@3", "abns@", "localhost:99", "ipv4@1.2.3.4", "1.2.3.4:x"] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue);
            assert!(error.message().contains(&format!("'{text}'")));
        }
    }
}
