//! A connection that only reads: COPY's frames as the server sends them, in large pieces, with no work for each row.
//!
//! sqlx gives a message at a time, out of reads of 8 KiB; over a whole table that is a quarter of the scan's processor time. A
//! lane hands on whole buffers of frames instead. It is only taken where the connection needs no TLS and the login no
//! more than a password; anything out of the ordinary falls back to sqlx, which also words the error then.

use std::io;

use super::CONNECT_TIMEOUT;
use super::batch::END_OF_COPY;
use crate::engine::inflow::{self, Frames, Inflow, PIECE_BYTES, PIECE_ROWS, Stream};
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{self, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Before each row: a tag and a length.
const FRAME_HEAD: usize = 5;

/// Every call blocks its thread.
pub(super) struct Lane {
    inflow: Inflow,
}

/// Why a lane could not go on.
#[derive(Debug)]
pub(super) enum LaneError {
    /// The server's own: SQLSTATE and message.
    Server {
        code: String,
        message: String,
        /// A function of the database stands behind it.
        in_function: bool,
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

/// Whether the error comes out of a function of the database, by the routine that told it and its context.
pub(super) fn in_function(routine: &str, context: &str) -> bool {
    routine == "exec_stmt_raise" || !context.is_empty()
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
    let in_function = in_function(&field(b'R'), &field(b'W'));
    LaneError::Server { code: field(b'C'), message: field(b'M'), in_function }
}

fn connect(options: &PgConnectOptions) -> Option<Box<dyn Stream>> {
    match options.get_socket() {
        Some(folder) => inflow::local(&folder.join(format!(".s.PGSQL.{}", options.get_port()))),
        None => inflow::tcp(options.get_host(), options.get_port(), CONNECT_TIMEOUT),
    }
}

impl Lane {
    fn new(stream: Box<dyn Stream>, give_up: Box<dyn Fn() -> bool + Send>) -> Self {
        Self { inflow: Inflow::new(stream, give_up) }
    }

    /// Logs in; `None` where this is not a lane's business, or fails in any way. While nothing comes, `give_up` is asked
    /// whether that is the end of it.
    pub(super) fn open(options: &PgConnectOptions, give_up: Box<dyn Fn() -> bool + Send>) -> Option<Self> {
        let mut lane = Self::new(connect(options)?, give_up);
        match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow => {}
            PgSslMode::Prefer => lane.server_has_no_tls().ok()?.then_some(())?,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => return None,
        }
        lane.log_in(options).ok()?;
        Some(lane)
    }

    pub(super) fn give_up_when(&mut self, give_up: Box<dyn Fn() -> bool + Send>) {
        self.inflow.give_up_when(give_up);
    }

    fn server_has_no_tls(&mut self) -> Result<bool, LaneError> {
        let mut ask = BytesMut::new();
        frontend::ssl_request(&mut ask);
        self.inflow.send(&ask)?;
        while self.inflow.known(0).is_empty() {
            self.inflow.fill()?;
        }
        // Nothing may come behind the one byte before the login.
        let answer = self.inflow.known(0) == b"N";
        self.inflow.consume(1);
        Ok(answer)
    }

    fn log_in(&mut self, options: &PgConnectOptions) -> Result<(), LaneError> {
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
        self.inflow.send(&out)?;
        let secret = || password.as_deref().ok_or_else(|| unexpected("the server asks for a password"));
        let mut scram = None;
        loop {
            out.clear();
            match self.message()? {
                Message::AuthenticationOk => return self.ready(),
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
            self.inflow.send(&out)?;
        }
    }

    /// Statements without rows.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), LaneError> {
        self.ask(sql)?;
        self.ready()
    }

    fn ask(&mut self, sql: &str) -> Result<(), LaneError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        Ok(self.inflow.send(&out)?)
    }

    /// Until the server waits for the next query; the first error on the way is the result.
    fn ready(&mut self) -> Result<(), LaneError> {
        let mut failed = None;
        loop {
            match self.message()? {
                Message::ReadyForQuery(_) => return failed.map_or(Ok(()), Err),
                Message::ErrorResponse(body) => failed = failed.or(Some(server_error(&body))),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<Message, LaneError> {
        loop {
            let known = self.inflow.known(0);
            if let Some((_, length)) = whole_frame(known)? {
                let mut frame = BytesMut::from(known.get(..length).unwrap_or_default());
                self.inflow.consume(length);
                return Message::parse(&mut frame)?.ok_or_else(|| unexpected("a frame's length"));
            }
            self.inflow.fill()?;
        }
    }

    /// Begins a COPY ... TO STDOUT.
    pub(super) fn copy(&mut self, sql: &str) -> Result<(), LaneError> {
        self.ask(sql)?;
        loop {
            match self.message()? {
                Message::CopyOutResponse(_) => return Ok(()),
                Message::ErrorResponse(body) => {
                    let error = server_error(&body);
                    self.ready()?;
                    return Err(error);
                }
                Message::NoticeResponse(_)
                | Message::ParameterStatus(_)
                | Message::NotificationResponse(_) => {}
                _ => return Err(unexpected("no answer to COPY")),
            }
        }
    }

    /// The next frames of the COPY that was begun, and the number of their rows; `None` when all is sent and the server
    /// waits again.
    pub(super) fn piece(&mut self) -> Result<Option<(Frames, usize)>, LaneError> {
        let (mut at, mut rows) = (0, 0);
        loop {
            let known = self.inflow.known(at);
            match whole_frame(known)? {
                Some((backend::COPY_DATA_TAG, length)) => {
                    let end = known.get(FRAME_HEAD..length) == Some(&END_OF_COPY);
                    at += length;
                    rows += usize::from(!end);
                    if at < PIECE_BYTES && rows < PIECE_ROWS {
                        continue;
                    }
                }
                Some(_) if at == 0 => match self.message()? {
                    Message::CopyDone => return self.ready().map(|()| None),
                    Message::ErrorResponse(body) => {
                        let error = server_error(&body);
                        self.ready()?;
                        return Err(error);
                    }
                    Message::NoticeResponse(_)
                    | Message::ParameterStatus(_)
                    | Message::NotificationResponse(_) => continue,
                    _ => return Err(unexpected("no COPY data")),
                },
                // Rows first, then whatever comes behind them.
                Some(_) => {}
                None => {
                    self.inflow.fill_more()?;
                    continue;
                }
            }
            return Ok(Some((self.inflow.take(at), rows)));
        }
    }

    pub(super) fn close(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The rows are all there; how the connection ends no longer matters.
        let _ = self.inflow.send(&out);
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
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bytes = bytes.to_vec();
        std::thread::spawn(move || {
            let (mut there, _) = listener.accept().unwrap();
            // In odd steps, so that frames come in parts.
            bytes.chunks(1009).try_for_each(|some| io::Write::write_all(&mut there, some))
        });
        Lane::new(inflow::tcp("127.0.0.1", port, CONNECT_TIMEOUT).unwrap(), Box::new(|| false))
    }

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    #[test]
    fn frames_come_whole_and_in_order_whatever_the_reads() {
        let rows: Vec<Vec<u8>> = (0..10_000usize).map(|n| n.to_be_bytes().repeat(1 + n % 40)).collect();
        let mut wire: Vec<u8> = rows.iter().flat_map(|row| frame(b'd', row)).collect();
        wire.extend(frame(b'N', b"\0"));
        wire.extend(frame(b'd', b"last"));
        wire.extend(frame(b'c', b""));
        wire.extend(frame(b'C', b"COPY 10001\0"));
        wire.extend(frame(b'Z', b"T"));
        let mut lane = lane(&wire);
        let mut seen = Vec::new();
        while let Some((piece, rows)) = lane.piece().unwrap() {
            let mut rest = piece.bytes();
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

    #[test]
    fn errors_and_ends_in_mid_copy_are_told() {
        let row = frame(b'd', b"row");
        let error = frame(b'E', b"SERROR\0C57014\0Mcanceling statement\0\0");
        let mut stopped = lane(&[row.clone(), error, frame(b'Z', b"E")].concat());
        assert_eq!(stopped.piece().unwrap().unwrap().1, 1);
        match stopped.piece() {
            Err(LaneError::Server { code, message, .. }) => {
                assert_eq!((code.as_str(), message.as_str()), ("57014", "canceling statement"));
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
        let mut cut = lane(&row[..6]);
        assert!(matches!(cut.piece(), Err(LaneError::Broken(_))));
        for nonsense in [[b'd', 0, 0, 0, 3, 0], [b'd', 0xff, 0, 0, 0, 0], [b'Z', 0, 0, 0, 5, b'I']] {
            assert!(matches!(lane(&nonsense).piece(), Err(LaneError::Broken(_))), "{nonsense:?}");
        }
    }
}
