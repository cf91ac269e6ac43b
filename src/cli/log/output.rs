//! Where lines go: standard output and error, a file, or a syslog server, which never holds up the program.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;

use crate::settings::{LogTo, Syslog, SyslogProtocol};

/// Lines that wait for a syslog server; more are lost.
const WAITING: usize = 1024;
/// How long a server may take to answer, and how long it is left alone after it did not.
const PATIENCE: Duration = Duration::from_secs(2);

/// An open target.
pub(super) enum Output {
    Stderr,
    Stdout,
    File(Mutex<std::fs::File>),
    Syslog(Frame, SyncSender<String>),
}

/// What stands before a message of syslog.
pub(super) struct Frame {
    facility: u8,
    host: String,
    tag: String,
    msgid: String,
}

impl Output {
    /// Opens a target. One that cannot be opened becomes standard error, and says so there.
    pub(super) fn open(to: &LogTo) -> Self {
        match to {
            LogTo::Stderr => Output::Stderr,
            LogTo::Stdout => Output::Stdout,
            LogTo::File(path) => match file(path) {
                Ok(file) => Output::File(Mutex::new(file)),
                Err(error) => {
                    complain(&format!("cannot log to {}: {error}", path.display()));
                    Output::Stderr
                }
            },
            LogTo::Syslog(server) => syslog(server).unwrap_or_else(|error| {
                complain(&format!("cannot log to syslog: {error}"));
                Output::Stderr
            }),
        }
    }

    /// Writes one line. A target that fails loses it: the program goes on.
    pub(super) fn write(&self, level: Level, line: &str) {
        let text = || format!("{line}\n");
        match self {
            Output::Stderr => complain(line),
            Output::Stdout => drop(io::stdout().lock().write_all(text().as_bytes())),
            Output::File(file) => {
                drop(file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text().as_bytes()));
            }
            Output::Syslog(frame, sender) => drop(sender.try_send(frame.message(level, line))),
        }
    }
}

fn complain(line: &str) {
    drop(io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}

fn file(path: &Path) -> io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn syslog(server: &Syslog) -> io::Result<Output> {
    let (sender, lines) = sync_channel(WAITING);
    let (address, protocol) = (server.address.clone(), server.protocol);
    // It ends when the target is dropped.
    std::thread::Builder::new().name("syslog".to_owned()).spawn(move || send(&lines, &address, protocol))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let frame = Frame { facility: server.facility, host, tag: server.tag.clone(), msgid: server.msgid.clone() };
    Ok(Output::Syslog(frame, sender))
}

impl Frame {
    /// RFC 5424 without structured data.
    fn message(&self, level: Level, line: &str) -> String {
        let severity = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let priority = u16::from(self.facility) * 8 + severity;
        let (time, pid) = (jiff::Timestamp::now(), std::process::id());
        let Frame { host, tag, msgid, .. } = self;
        format!("<{priority}>1 {time:.6} {host} {tag} {pid} {msgid} - {line}")
    }
}

/// A connection to a server.
enum Wire {
    Stream(Box<dyn Write>),
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

fn send(lines: &Receiver<String>, address: &str, protocol: SyslogProtocol) {
    let mut wire: Option<Wire> = None;
    while let Ok(line) = lines.recv() {
        // A connection that has broken since the last line is made anew, once.
        for _ in 0..2 {
            let connected = wire.take().map_or_else(|| connect(address, protocol), Ok);
            let Ok(mut connected) = connected else {
                std::thread::sleep(PATIENCE);
                break;
            };
            if transmit(&mut connected, &line).is_ok() {
                wire = Some(connected);
                break;
            }
        }
    }
}

fn connect(address: &str, protocol: SyslogProtocol) -> io::Result<Wire> {
    Ok(match protocol {
        SyslogProtocol::Tcp => {
            let stream = TcpStream::connect(address)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Wire::Stream(Box::new(stream))
        }
        SyslogProtocol::Udp => {
            let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            Wire::Udp(socket)
        }
        SyslogProtocol::Unix => {
            let stream = UnixStream::connect(address)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Wire::Stream(Box::new(stream))
        }
        SyslogProtocol::UnixDatagram => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(address)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Wire::Unix(socket)
        }
    })
}

fn transmit(wire: &mut Wire, line: &str) -> io::Result<()> {
    match wire {
        Wire::Stream(stream) => stream.write_all(format!("{line}\n").as_bytes()),
        Wire::Udp(socket) => socket.send(line.as_bytes()).map(drop),
        Wire::Unix(socket) => socket.send(line.as_bytes()).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    fn server(address: String, protocol: SyslogProtocol) -> LogTo {
        LogTo::Syslog(Syslog { address, protocol, tag: "api".into(), facility: 16, msgid: "-".into() })
    }

    #[test]
    fn syslog_gets_each_line_over_udp_and_tcp_and_unix() {
        let patience = Some(Duration::from_secs(10));
        let check = |text: &str, line: &str| {
            assert!(text.starts_with("<132>1 20") && text.trim_end().ends_with(line), "{text}");
            assert!(text.contains(&format!(" api {} - - ", std::process::id())), "{text}");
        };
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(patience).unwrap();
        let output = Output::open(&server(udp.local_addr().unwrap().to_string(), SyslogProtocol::Udp));
        output.write(Level::WARN, "one");
        let mut buffer = [0; 512];
        let count = udp.recv(&mut buffer).unwrap();
        check(&String::from_utf8_lossy(&buffer[..count]), "one");

        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let output = Output::open(&server(tcp.local_addr().unwrap().to_string(), SyslogProtocol::Tcp));
        output.write(Level::WARN, "two");
        output.write(Level::WARN, "three");
        let (stream, _) = tcp.accept().unwrap();
        stream.set_read_timeout(patience).unwrap();
        let lines: Vec<String> = BufReader::new(stream).lines().take(2).map(Result::unwrap).collect();
        check(&lines[0], "two");
        check(&lines[1], "three");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let unix = UnixDatagram::bind(&path).unwrap();
        unix.set_read_timeout(patience).unwrap();
        let output = Output::open(&server(path.display().to_string(), SyslogProtocol::UnixDatagram));
        output.write(Level::WARN, "four");
        let count = unix.recv(&mut buffer).unwrap();
        check(&String::from_utf8_lossy(&buffer[..count]), "four");
    }
}
