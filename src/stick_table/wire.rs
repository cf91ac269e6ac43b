//! A connection to HAProxy that can be left alone for a while.
//!
//! The system wakes us for each piece that comes on a connection that it watches for us, also while we do not want it yet:
//! on a busy one that costs more than the updates in it. So it watches a connection only after a read that found nothing,
//! and until that is said to be enough.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::runtime::Socket;

/// A connection of any kind.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// It is left alone until it is read or written again.
    fn rest(&mut self) -> io::Result<()>;
}

/// What went over a wire.
pub(super) enum Moved {
    /// So many bytes came; 0 at the end.
    In(usize),
    /// So many bytes were taken; 0 at the end.
    Out(usize),
}

/// Reads what there is, or writes what is taken. Both can go on forever, so that which one is tried first takes turns.
pub(super) async fn exchange(
    wire: &mut (impl Wire + ?Sized),
    input: &mut BytesMut,
    output: &mut BytesMut,
    turn: &mut bool,
) -> io::Result<Moved> {
    *turn = !*turn;
    std::future::poll_fn(|context| {
        for writes in [*turn, !*turn] {
            let wire = Pin::new(&mut *wire);
            let moved = match writes {
                true if output.is_empty() => continue,
                true => poll_write_buf(wire, context, output).map_ok(Moved::Out),
                false => poll_read_buf(wire, context, input).map_ok(Moved::In),
            };
            if moved.is_ready() {
                return moved;
            }
        }
        Poll::Pending
    })
    .await
}

/// A socket.
#[derive(Debug)]
pub(super) enum Plain {
    /// The system watches it.
    WatchedUnix(UnixStream),
    WatchedTcp(TcpStream),
    /// It does not.
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
    /// It was lost on the way between the two.
    Gone,
}

impl From<Socket> for Plain {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Unix(stream) => Plain::WatchedUnix(stream),
            Socket::Tcp(stream) => Plain::WatchedTcp(stream),
        }
    }
}

impl Plain {
    fn turned(&mut self, turn: impl FnOnce(Plain) -> io::Result<Plain>) -> io::Result<()> {
        *self = turn(std::mem::replace(self, Plain::Gone))?;
        Ok(())
    }

    fn watch(&mut self) -> io::Result<()> {
        self.turned(|plain| {
            Ok(match plain {
                Plain::Unix(stream) => Plain::WatchedUnix(UnixStream::from_std(stream)?),
                Plain::Tcp(stream) => Plain::WatchedTcp(TcpStream::from_std(stream)?),
                other => other,
            })
        })
    }

    fn unwatch(&mut self) -> io::Result<()> {
        self.turned(|plain| {
            Ok(match plain {
                Plain::WatchedUnix(stream) => Plain::Unix(stream.into_std()?),
                Plain::WatchedTcp(stream) => Plain::Tcp(stream.into_std()?),
                other => other,
            })
        })
    }
}

impl Wire for Plain {
    fn rest(&mut self) -> io::Result<()> {
        self.unwatch()
    }
}

impl Wire for TlsStream<Plain> {
    fn rest(&mut self) -> io::Result<()> {
        self.get_mut().0.rest()
    }
}

/// What a socket that is not watched does at once; nothing when it has to be waited for.
fn at_once<T>(done: io::Result<T>) -> Option<io::Result<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        done => Some(done),
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut *self {
            Plain::Unix(stream) => at_once(stream.read(buffer.initialize_unfilled())),
            Plain::Tcp(stream) => at_once(stream.read(buffer.initialize_unfilled())),
            _ => None,
        };
        if let Some(read) = read {
            buffer.advance(read?);
            return Poll::Ready(Ok(()));
        }
        self.watch()?;
        match &mut *self {
            Plain::WatchedUnix(stream) => Pin::new(stream).poll_read(context, buffer),
            Plain::WatchedTcp(stream) => Pin::new(stream).poll_read(context, buffer),
            _ => gone(),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watch()?;
        match &mut *self {
            Plain::WatchedUnix(stream) => Pin::new(stream).poll_write(context, bytes),
            Plain::WatchedTcp(stream) => Pin::new(stream).poll_write(context, bytes),
            _ => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch()?;
        match &mut *self {
            Plain::WatchedUnix(stream) => Pin::new(stream).poll_shutdown(context),
            Plain::WatchedTcp(stream) => Pin::new(stream).poll_shutdown(context),
            _ => gone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (Plain, std::os::unix::net::UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        (Plain::from(Socket::Unix(ours)), theirs)
    }

    fn watched(wire: &Plain) -> bool {
        matches!(wire, Plain::WatchedUnix(_) | Plain::WatchedTcp(_))
    }

    #[tokio::test]
    async fn what_comes_while_it_rests_is_read_afterwards() {
        let (mut wire, mut theirs) = pair();
        let (mut input, mut output, mut turn) = (BytesMut::new(), BytesMut::new(), false);
        for round in 0..3_u8 {
            wire.rest().unwrap();
            assert!(!watched(&wire));
            theirs.write_all(&[round]).unwrap();
            let moved = exchange(&mut wire, &mut input, &mut output, &mut turn).await.unwrap();
            assert!(matches!(moved, Moved::In(1)) && !watched(&wire), "found at once");
            // Nothing is there: now it is watched.
            let later = std::thread::spawn({
                let mut theirs = theirs.try_clone().unwrap();
                move || {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    theirs.write_all(&[round + 10]).unwrap();
                }
            });
            assert_eq!(wire.read_u8().await.unwrap(), round + 10);
            assert!(watched(&wire));
            later.join().unwrap();
        }
        assert_eq!(&input[..], [0, 1, 2]);
        wire.rest().unwrap();
        wire.write_all(b"x").await.unwrap();
        wire.rest().unwrap();
        let mut taken = [0];
        theirs.read_exact(&mut taken).unwrap();
        drop(theirs);
        assert!(matches!(exchange(&mut wire, &mut input, &mut output, &mut turn).await, Ok(Moved::In(0))));
    }

    #[tokio::test]
    async fn neither_direction_holds_the_other() {
        let (mut wire, mut theirs) = pair();
        let (mut input, mut turn, mut moved) = (BytesMut::with_capacity(1), false, [0, 0]);
        theirs.write_all(&[0; 100]).unwrap();
        for _ in 0..20 {
            input.clear();
            let mut output = BytesMut::from(&b"more"[..]);
            // What can be read and written is only found out while nothing else is done.
            tokio::task::yield_now().await;
            match exchange(&mut wire, &mut input, &mut output, &mut turn).await.unwrap() {
                Moved::In(_) => moved[0] += 1,
                Moved::Out(_) => moved[1] += 1,
            }
        }
        assert_eq!(moved, [10, 10]);
    }
}
