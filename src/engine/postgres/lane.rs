//! A connection that only reads: COPY's frames as the server sends them, in large pieces, with no work for each row.
//!
//! sqlx gives a message at a time, out of reads of 8 KiB; over a whole table that is a quarter of the scan's processor time. A
//! lane hands on whole buffers of frames instead. It is only taken where the connection needs no TLS and the login no
//! more than a password; anything out of the ordinary falls back to sqlx, which also words the error then.

use std::io;

use super::scan::END_OF_COPY;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{self, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A buffer is handed on when it holds this much; a row may make it longer.
const PIECE_BYTES: usize = 256 * 1024;
/// Rows of one piece: what is hashed by one task.
const PIECE_ROWS: usize = 4096;
/// Before each row: a tag and a length.
const FRAME_HEAD: usize = 5;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

pub(super) struct Lane {
    stream: Box<dyn Stream>,
    read: BytesMut,
}

/// Why a lane could not go on.
#[derive(Debug)]
pub(super) enum LaneError {
    /// The server's own: SQLSTATE and message.
    Server {
        code: String,
        message: String,
    },
    Broken(io::Error),
}

impl From<io::Error> for LaneError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

fn unexpected(what: &str) -> LaneError {
    LaneError::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
}

fn server_error(body: &ErrorResponseBody) -> LaneError {
    let field = |wanted: u8| {
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            if field.type_() == wanted {
                return String::from_utf8_lossy(field.value_bytes()).into_owned();
            }
        }
        String::new()
    };
    LaneError::Server { code: field(b'C'), message: field(b'M') }
}

impl Lane {
    /// Logs in; `None` where this is not a lane's business, or fails in any way.
    pub(super) async fn open(options: &PgConnectOptions) -> Option<Self> {
        let stream: Box<dyn Stream> = match options.get_socket() {
            #[cfg(unix)]
            Some(folder) => {
                let path = folder.join(format!(".s.PGSQL.{}", options.get_port()));
                Box::new(tokio::net::UnixStream::connect(path).await.ok()?)
            }
            #[cfg(not(unix))]
            Some(_) => return None,
            None => {
                let stream = TcpStream::connect((options.get_host(), options.get_port())).await.ok()?;
                stream.set_nodelay(true).ok()?;
                Box::new(stream)
            }
        };
        let mut lane = Self { stream, read: BytesMut::new() };
        match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => {}
            PgSslMode::Prefer => lane.server_has_no_tls().await.ok()?.then_some(())?,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => return None,
        }
        lane.log_in(options).await.ok()?;
        Some(lane)
    }

    async fn server_has_no_tls(&mut self) -> io::Result<bool> {
        let mut ask = BytesMut::new();
        frontend::ssl_request(&mut ask);
        self.stream.write_all(&ask).await?;
        Ok(self.stream.read_u8().await? == b'N')
    }

    async fn log_in(&mut self, options: &PgConnectOptions) -> Result<(), LaneError> {
        // The only way sqlx shows the password that it found in the URL, the environment or the password file.
        let url = options.to_url_lossy();
        let password =
            url.password().map(|text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
        let user = options.get_username();
        let mut parameters = vec![("user", user), ("client_encoding", "UTF8")];
        parameters.extend(options.get_database().map(|name| ("database", name)));
        parameters.extend(options.get_application_name().map(|name| ("application_name", name)));
        parameters.extend(options.get_options().map(|text| ("options", text)));
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)?;
        self.stream.write_all(&out).await?;
        let secret = || password.as_deref().ok_or_else(|| unexpected("the server asks for a password"));
        let mut scram = None;
        loop {
            out.clear();
            match self.message().await? {
                Message::AuthenticationOk => return self.ready().await,
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(secret()?, &mut out)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), secret()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                }
                Message::AuthenticationSasl(body) => {
                    let mut offered = body.mechanisms();
                    let mut known = false;
                    while let Some(mechanism) = offered.next()? {
                        known |= mechanism == SCRAM_SHA_256;
                    }
                    if !known {
                        return Err(unexpected("no login that a lane knows"));
                    }
                    let exchange = ScramSha256::new(secret()?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), &mut out)?;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let exchange = scram.as_mut().ok_or_else(|| unexpected("SASL out of order"))?;
                    exchange.update(body.data())?;
                    frontend::sasl_response(exchange.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let exchange = scram.as_mut().ok_or_else(|| unexpected("SASL out of order"))?;
                    exchange.finish(body.data())?;
                }
                Message::ErrorResponse(body) => return Err(server_error(&body)),
                _ => return Err(unexpected("no login that a lane knows")),
            }
            self.stream.write_all(&out).await?;
        }
    }

    /// Statements without rows.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), LaneError> {
        self.ask(sql).await?;
        self.ready().await
    }

    async fn ask(&mut self, sql: &str) -> Result<(), LaneError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        Ok(self.stream.write_all(&out).await?)
    }

    /// Until the server waits for the next query; the first error on the way is the result.
    async fn ready(&mut self) -> Result<(), LaneError> {
        let mut failed = None;
        loop {
            match self.message().await? {
                Message::ReadyForQuery(_) => return failed.map_or(Ok(()), Err),
                Message::ErrorResponse(body) => failed = failed.or(Some(server_error(&body))),
                _ => {}
            }
        }
    }

    async fn message(&mut self) -> Result<Message, LaneError> {
        loop {
            if let Some(message) = Message::parse(&mut self.read)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), LaneError> {
        self.read.reserve(PIECE_BYTES);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(LaneError::Broken(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Begins a COPY ... TO STDOUT.
    pub(super) async fn copy(&mut self, sql: &str) -> Result<(), LaneError> {
        self.ask(sql).await?;
        loop {
            match self.message().await? {
                Message::CopyOutResponse(_) => return Ok(()),
                Message::ErrorResponse(body) => {
                    let error = server_error(&body);
                    self.ready().await?;
                    return Err(error);
                }
                Message::NoticeResponse(_)
                | Message::ParameterStatus(_)
                | Message::NotificationResponse(_) => {}
                _ => return Err(unexpected("no answer to COPY")),
            }
        }
    }

    /// The next frames of the COPY that was begun, each a row with `FRAME_HEAD` bytes before it, and their number; `None`
    /// when all is sent and the server waits again.
    pub(super) async fn piece(&mut self) -> Result<Option<(BytesMut, usize)>, LaneError> {
        let (mut at, mut rows) = (0, 0);
        loop {
            let known = self.read.get(at..).unwrap_or_default();
            match whole_frame(known)? {
                Some((backend::COPY_DATA_TAG, length)) => {
                    let end = known.get(FRAME_HEAD..length) == Some(&END_OF_COPY);
                    at += length;
                    rows += usize::from(!end);
                    if at < PIECE_BYTES && rows < PIECE_ROWS {
                        continue;
                    }
                }
                Some(_) if at == 0 => {
                    return match self.message().await? {
                        Message::CopyDone => self.ready().await.map(|()| None),
                        Message::ErrorResponse(body) => {
                            let error = server_error(&body);
                            self.ready().await?;
                            Err(error)
                        }
                        Message::NoticeResponse(_)
                        | Message::ParameterStatus(_)
                        | Message::NotificationResponse(_) => Box::pin(self.piece()).await,
                        _ => Err(unexpected("no COPY data")),
                    };
                }
                // Rows first, then whatever comes behind them.
                Some(_) => {}
                None => {
                    self.fill().await?;
                    continue;
                }
            }
            return Ok(Some((self.take(at), rows)));
        }
    }

    /// Takes the first bytes; what is behind them moves to a buffer of its own, so that the piece is nobody else's.
    fn take(&mut self, at: usize) -> BytesMut {
        let mut rest = BytesMut::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        rest.extend_from_slice(self.read.get(at..).unwrap_or_default());
        let mut piece = std::mem::replace(&mut self.read, rest);
        piece.truncate(at);
        piece
    }

    pub(super) async fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The rows are all there; how the connection ends no longer matters.
        let _ = self.stream.write_all(&out).await;
        let _ = self.stream.shutdown().await;
    }
}

/// Tag and whole length of the frame at the front, if it is there to its end.
#[inline]
fn whole_frame(bytes: &[u8]) -> Result<Option<(u8, usize)>, LaneError> {
    let Some(([tag, length @ ..], _)) = bytes.split_first_chunk::<FRAME_HEAD>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| unexpected("a frame's length"))?;
    // A length counts itself, and the server sends no message beyond a gigabyte.
    if !(4..=1 << 30).contains(&length) {
        return Err(unexpected("a frame's length"));
    }
    Ok((bytes.len() > length).then_some((*tag, length + 1)))
}

/// The frame at the front, as its tag and its body, and what is behind it; `None` where there is no whole one.
#[inline]
pub(super) fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, length) = whole_frame(bytes).ok()??;
    let (frame, behind) = bytes.split_at_checked(length)?;
    Some((tag, frame.get(FRAME_HEAD..)?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(bytes: &[u8]) -> Lane {
        let (mut there, here) = tokio::io::duplex(16);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            // In small steps, so that frames come in parts.
            let _ = there.write_all(&bytes).await;
        });
        Lane { stream: Box::new(here), read: BytesMut::new() }
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    #[tokio::test]
    async fn frames_come_whole_and_in_order_whatever_the_reads() {
        let rows: Vec<Vec<u8>> = (0..10_000usize).map(|n| n.to_be_bytes().repeat(1 + n % 40)).collect();
        let mut wire: Vec<u8> = rows.iter().flat_map(|row| frame(b'd', row)).collect();
        wire.extend(frame(b'N', b"\0"));
        wire.extend(frame(b'd', b"last"));
        wire.extend(frame(b'c', b""));
        wire.extend(frame(b'C', b"COPY 10001\0"));
        wire.extend(frame(b'Z', b"T"));
        let mut lane = lane(&wire);
        let mut seen = Vec::new();
        while let Some((piece, rows)) = lane.piece().await.unwrap() {
            let mut rest = &piece[..];
            for _ in 0..rows {
                let (tag, row, behind) = split_frame(rest).unwrap();
                assert_eq!(tag, b'd');
                seen.push(row.to_vec());
                rest = behind;
            }
            assert!(rest.is_empty() && rows <= PIECE_ROWS);
        }
        assert_eq!(seen.len(), rows.len() + 1);
        assert_eq!(seen[..rows.len()], rows);
    }

    #[tokio::test]
    async fn errors_and_ends_in_mid_copy_are_told() {
        let row = frame(b'd', b"row");
        let error = frame(b'E', b"SERROR\0C57014\0Mcanceling statement\0\0");
        let mut stopped = lane(&[row.clone(), error, frame(b'Z', b"E")].concat());
        assert_eq!(stopped.piece().await.unwrap().unwrap().1, 1);
        match stopped.piece().await {
            Err(LaneError::Server { code, message }) => {
                assert_eq!((code.as_str(), message.as_str()), ("57014", "canceling statement"));
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
        let mut cut = lane(&row[..6]);
        assert!(matches!(cut.piece().await, Err(LaneError::Broken(_))));
        for nonsense in [[b'd', 0, 0, 0, 3, 0], [b'd', 0xff, 0, 0, 0, 0], [b'Z', 0, 0, 0, 5, b'I']] {
            assert!(matches!(lane(&nonsense).piece().await, Err(LaneError::Broken(_))), "{nonsense:?}");
        }
    }
}
