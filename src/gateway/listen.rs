//! Opens the sockets of the API. They can stay open while the server begins anew, so that no client is refused
//! meanwhile.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// User and group of the socket file may call.
const MODE: u32 = 0o660;

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a unix socket. One that nobody listens on any more is taken over.
    Unix(PathBuf),
}

/// A socket that connections come in by.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Socket {
    /// As shown to people: `127.0.0.1:5555` or `unix:/run/x.sock`.
    pub fn shown(&self) -> String {
        match self {
            Socket::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string()),
            Socket::Unix(listener) => {
                let address = listener.local_addr();
                let path = address.ok().and_then(|at| Some(at.as_pathname()?.display().to_string()));
                format!("unix:{}", path.unwrap_or_default())
            }
        }
    }

    /// The address of a TCP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

/// Sockets that are open. Dropping it closes them and removes the files of unix sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    open: Vec<(Place, Held)>,
}

#[derive(Debug)]
enum Held {
    Tcp(StdTcpListener),
    Unix(StdUnixListener, File),
}

/// The file of a unix socket, removed if it is still ours.
#[derive(Debug)]
struct File {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for File {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "socket not removed");
        }
    }
}

impl Sockets {
    /// Opens a socket for each place, in their order. Those that are open already are kept, and others closed. The error
    /// names the place. To be called within the runtime.
    pub fn open(&mut self, places: &[Place]) -> io::Result<Vec<Socket>> {
        let mut known = std::mem::take(&mut self.open);
        let mut opened = Vec::with_capacity(places.len());
        for place in places {
            let held = match known.iter().position(|(at, _)| at == place) {
                Some(at) => known.swap_remove(at).1,
                None => bind(place).map_err(|error| named(place, &error))?,
            };
            opened.push(held.socket().map_err(|error| named(place, &error))?);
            self.open.push((place.clone(), held));
        }
        Ok(opened)
    }

    /// Files of unix sockets.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.open.iter().filter_map(|(_, held)| match held {
            Held::Tcp(_) => None,
            Held::Unix(_, file) => Some(file.path.as_path()),
        })
    }
}

impl Held {
    fn socket(&self) -> io::Result<Socket> {
        Ok(match self {
            Held::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener.try_clone()?)?),
            Held::Unix(listener, _) => Socket::Unix(UnixListener::from_std(listener.try_clone()?)?),
        })
    }
}

fn bind(place: &Place) -> io::Result<Held> {
    match place {
        Place::Tcp(address) => {
            let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
            // What a killed server left in TIME_WAIT does not keep the next one from starting.
            socket.set_reuseaddr(true)?;
            socket.bind(*address)?;
            Ok(Held::Tcp(socket.listen(BACKLOG)?.into_std()?))
        }
        Place::Unix(path) => {
            clear(path)?;
            let listener = StdUnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            let meta = fs::symlink_metadata(path)?;
            let file = File { path: path.clone(), inode: (meta.dev(), meta.ino()) };
            fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
            Ok(Held::Unix(listener, file))
        }
    }
}

/// Removes the socket of a process that is gone. Anything else at the path stays, and is an error.
fn clear(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

fn named(place: &Place, error: &io::Error) -> io::Error {
    let what = match (place, error.kind()) {
        (Place::Tcp(_), io::ErrorKind::AddrInUse) => "the port is taken by another process".to_owned(),
        (Place::Unix(_), io::ErrorKind::AddrInUse) => "another process listens there".to_owned(),
        _ => error.to_string(),
    };
    let shown = match place {
        Place::Tcp(address) => address.to_string(),
        Place::Unix(path) => path.display().to_string(),
    };
    io::Error::new(error.kind(), format!("cannot listen on {shown}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_private_taken_over_when_stale_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let place = [Place::Unix(path.clone())];
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.try_exists().unwrap(), "left behind by one that is gone");

        let mut sockets = Sockets::default();
        let socket = sockets.open(&place).unwrap();
        assert_eq!(socket[0].shown(), format!("unix:{}", path.display()));
        assert_eq!(sockets.files().collect::<Vec<_>>(), [&path]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let error = Sockets::default().open(&place).unwrap_err();
        assert!(error.to_string().ends_with("another process listens there"), "{error}");
        StdUnixStream::connect(&path).unwrap();

        drop(socket);
        sockets.open(&[]).unwrap();
        assert!(!path.try_exists().unwrap());
        fs::write(&path, "precious").unwrap();
        let error = sockets.open(&place).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_socket_that_stays_keeps_its_port_and_its_waiting_clients() {
        let any = Place::Tcp("127.0.0.1:0".parse().unwrap());
        let mut sockets = Sockets::default();
        let first = sockets.open(&[any.clone(), any.clone()]).unwrap();
        let address = first[0].address().unwrap();
        assert_ne!(first[1].address().unwrap(), address);
        drop(first);
        let _client = std::net::TcpStream::connect(address).unwrap();
        let again = sockets.open(std::slice::from_ref(&any)).unwrap();
        assert_eq!(again[0].address().unwrap(), address);
        let Socket::Tcp(listener) = &again[0] else { panic!("not TCP") };
        listener.accept().await.unwrap();

        let error = Sockets::default().open(&[Place::Tcp(address)]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: the port is taken by another process"));
        drop((again, sockets));
        Sockets::default().open(&[Place::Tcp(address)]).unwrap();
    }
}
