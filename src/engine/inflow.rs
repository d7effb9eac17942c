//! What a server sends, taken from its socket in large pieces: buffers go out full of rows, and come back.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

/// A buffer is handed on when it holds this much; a row may make it longer.
pub(super) const PIECE_BYTES: usize = 512 * 1024;
/// What a buffer holds before a long row makes it longer.
const BUFFER_BYTES: usize = PIECE_BYTES + PIECE_BYTES / 4;
/// Rows of one piece: what is hashed by one task.
pub(super) const PIECE_ROWS: usize = 8192;
/// After a read that brought less, the thread sleeps before the next: servers send 8 or 16 KiB at a time, and a wake-up
/// for each costs them and us more than the rows do.
const READ_ENOUGH: usize = 128 * 1024;
const PAUSE: Duration = Duration::from_millis(1);
/// So often a thread that waits looks whether anyone still wants its rows.
const LOOK_UP: Duration = Duration::from_millis(200);

/// A connection that sends nothing for so long, while rows are awaited, is taken for dead.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(600);
/// A peer that no longer answers is found out by the kernel: after a minute of silence it is asked, four times.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMES: u32 = 4;

/// What is told of a connection that was silent for so long.
pub(super) fn silence(limit: Duration) -> io::Error {
    let what = format!("the server sent nothing for {} s, and rows are awaited", limit.as_secs_f32());
    io::Error::new(io::ErrorKind::TimedOut, what)
}

pub(super) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A socket, with a limit to how long a read may sleep.
pub(super) fn tcp(host: &str, port: u16, patience: Duration) -> Option<Box<dyn Stream>> {
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    let stream = addresses.find_map(|to| TcpStream::connect_timeout(&to, patience).ok())?;
    stream.set_nodelay(true).ok()?;
    keep_alive(&stream).ok()?;
    stream.set_read_timeout(Some(LOOK_UP)).ok()?;
    Some(Box::new(stream))
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let alive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&alive.with_retries(KEEPALIVE_TIMES))
}

/// As `tcp`, by a path.
#[cfg(unix)]
pub(super) fn local(path: &std::path::Path) -> Option<Box<dyn Stream>> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(LOOK_UP)).ok()?;
    Some(Box::new(stream))
}

#[cfg(not(unix))]
pub(super) fn local(_path: &std::path::Path) -> Option<Box<dyn Stream>> {
    None
}

/// Buffers that come back when their rows are hashed.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// A socket and what was read from it. Every call blocks its thread.
pub(super) struct Inflow {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
    /// How much of `read` holds what was read.
    filled: usize,
    spare: Spare,
    /// Asked while nothing comes.
    give_up: Box<dyn Fn() -> bool + Send>,
    idle_limit: Duration,
}

/// A buffer that is handed on.
pub(super) struct Frames {
    bytes: Vec<u8>,
    filled: usize,
    spare: Spare,
}

impl Frames {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        // One that a long row has stretched is not kept.
        if self.bytes.len() == BUFFER_BYTES {
            let bytes = std::mem::take(&mut self.bytes);
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}

impl Inflow {
    pub(super) fn new(stream: Box<dyn Stream>, give_up: Box<dyn Fn() -> bool + Send>) -> Self {
        let (read, spare) = (vec![0; BUFFER_BYTES], Spare::default());
        Self { stream, read, filled: 0, spare, give_up, idle_limit: IDLE_LIMIT }
    }

    /// How long `fill` waits for a byte.
    pub(super) fn wait_at_most(&mut self, idle_limit: Duration) {
        self.idle_limit = idle_limit;
    }

    pub(super) fn give_up_when(&mut self, give_up: Box<dyn Fn() -> bool + Send>) {
        self.give_up = give_up;
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// What was read and not yet taken, from `at` on.
    #[inline]
    pub(super) fn known(&self, at: usize) -> &[u8] {
        self.read.get(at..self.filled).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.filled);
        self.read.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    /// Reads what is there, or waits for more. The time between two calls, in which nobody asks for bytes, is not counted.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        if self.filled == self.read.len() {
            self.read.resize(self.read.len() * 2, 0);
        }
        let since = Instant::now();
        loop {
            match self.stream.read(self.read.get_mut(self.filled..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.filled += read;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if (self.give_up)() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    if since.elapsed() >= self.idle_limit {
                        return Err(silence(self.idle_limit));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As `fill`, in the middle of rows.
    pub(super) fn fill_more(&mut self) -> io::Result<()> {
        let before = self.filled;
        self.fill()?;
        if self.filled - before < READ_ENOUGH {
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Takes the first bytes; what is behind them moves to another buffer.
    pub(super) fn take(&mut self, at: usize) -> Frames {
        let at = at.min(self.filled);
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut next = spare.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        let rest = self.known(at);
        if next.len() < rest.len() {
            next.resize(rest.len(), 0);
        }
        if let Some(front) = next.get_mut(..rest.len()) {
            front.copy_from_slice(rest);
        }
        self.filled = rest.len();
        let bytes = std::mem::replace(&mut self.read, next);
        Frames { bytes, filled: at, spare: Arc::clone(&self.spare) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_waited_for_no_longer_than_its_limit_and_only_while_bytes_are_awaited() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let stream = tcp("127.0.0.1", port, Duration::from_secs(5)).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        let mut inflow = Inflow::new(stream, Box::new(|| false));
        let limit = Duration::from_millis(300);
        inflow.wait_at_most(limit);
        peer.write_all(b"a").unwrap();
        inflow.fill().unwrap();
        // Who is busy elsewhere does not wait.
        thread::sleep(2 * limit);
        let since = Instant::now();
        let error = inflow.fill().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("nothing for 0.3 s"), "{error}");
        assert!(since.elapsed() >= limit);
        assert_eq!(inflow.known(0), b"a");
    }

    #[cfg(unix)]
    #[test]
    fn the_kernel_asks_a_silent_peer_whether_it_lives() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        assert!(keep_alive(&client).is_ok());
        let socket = SockRef::from(&client);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
    }
}
