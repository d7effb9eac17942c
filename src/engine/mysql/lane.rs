//! A connection that only reads: the binary rows of a query as the server sends them, in large pieces, with no work for
//! each row.
//!
//! sqlx gives a row at a time, each in memory of its own and with its values' places found; over a whole table that is
//! most of the scan's processor time. A lane hands on whole buffers of packets instead. It is only taken where the
//! connection needs no TLS and the login no more than a password; anything out of the ordinary falls back to sqlx, which
//! also words the error then.

mod login;
pub(super) mod packets;

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use self::login::Credentials;
use self::packets::{Definition, ERROR, HEAD, OK};
use crate::engine::inflow::{self, Frames, Inflow, PIECE_BYTES, PIECE_ROWS};
use sqlx::mysql::MySqlSslMode;

use super::session::Target;

/// What a lane asks for.
mod command {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const PREPARE: u8 = 0x16;
    pub(super) const EXECUTE: u8 = 0x17;
    pub(super) const CLOSE: u8 = 0x19;
}

/// Every call blocks its thread.
pub(super) struct Lane {
    inflow: Inflow,
    /// Of the next packet of an exchange.
    number: u8,
    /// The statement that was prepared last.
    statement: Option<[u8; 4]>,
}

/// Why a lane could not go on.
#[derive(Debug)]
pub(super) enum LaneError {
    /// The server's own words.
    Server {
        number: u16,
        state: String,
        message: String,
    },
    Broken(io::Error),
    Protocol(String),
}

impl From<io::Error> for LaneError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

fn unexpected(what: &str) -> LaneError {
    LaneError::Protocol(format!("the server sent {what}"))
}

impl Lane {
    fn new(inflow: Inflow) -> Self {
        Self { inflow, number: 0, statement: None }
    }

    /// Logs in; `None` where this is not a lane's business, or fails in any way. While nothing comes, `give_up` is asked
    /// whether that is the end of it.
    pub(super) fn open(target: &Target, give_up: Box<dyn Fn() -> bool + Send>) -> Option<Self> {
        let options = &target.options;
        let preferred = match options.get_ssl_mode() {
            MySqlSslMode::Disabled => false,
            MySqlSslMode::Preferred => true,
            MySqlSslMode::Required | MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity => return None,
        };
        let socket = options.get_socket();
        let stream = match socket {
            Some(path) => inflow::local(path)?,
            None => {
                let host = options.get_host().trim_matches(['[', ']']);
                inflow::tcp(host, options.get_port(), target.timeout)?
            }
        };
        let mut lane = Self::new(Inflow::new(stream, give_up));
        let who = Credentials {
            user: options.get_username(),
            password: &target.password,
            database: options.get_database(),
            unless_tls: preferred && socket.is_none(),
            private: socket.is_some(),
        };
        lane.log_in(&who).ok()?;
        lane.run(&target.settings).ok()?;
        Some(lane)
    }

    pub(super) fn give_up_when(&mut self, give_up: Box<dyn Fn() -> bool + Send>) {
        self.inflow.give_up_when(give_up);
    }

    /// How long bytes are awaited.
    pub(super) fn wait_at_most(&mut self, idle_limit: Duration) {
        self.inflow.wait_at_most(idle_limit);
    }

    /// Goes on in an exchange.
    fn reply(&mut self, body: &[u8]) -> Result<(), LaneError> {
        let mut out = Vec::with_capacity(body.len() + HEAD);
        packets::put(&mut out, self.number, body);
        Ok(self.inflow.send(&out)?)
    }

    /// Begins one.
    fn ask(&mut self, command: u8, body: &[u8]) -> Result<(), LaneError> {
        self.number = 0;
        self.reply(&[&[command], body].concat())
    }

    fn message(&mut self) -> Result<Vec<u8>, LaneError> {
        loop {
            let known = self.inflow.known(0);
            if let Some(length) = packets::whole(known)? {
                let known = known.get(..length).unwrap_or_default();
                self.number = packets::number(known).wrapping_add(1);
                let body = packets::split(known).map(|(body, _)| Cow::into_owned(body)).unwrap_or_default();
                self.inflow.consume(length);
                return Ok(body);
            }
            self.inflow.fill()?;
        }
    }

    /// The next message that is no error.
    fn answer(&mut self) -> Result<Vec<u8>, LaneError> {
        let body = self.message()?;
        if body.first() == Some(&ERROR) { Err(packets::error(&body)) } else { Ok(body) }
    }

    fn end(&mut self) -> Result<(), LaneError> {
        if packets::is_end(&self.answer()?) { Ok(()) } else { Err(unexpected("no end of definitions")) }
    }

    /// A statement without rows.
    pub(super) fn run(&mut self, sql: &str) -> Result<(), LaneError> {
        self.ask(command::QUERY, sql.as_bytes())?;
        match self.answer()?.first() {
            Some(&OK) => Ok(()),
            _ => Err(unexpected("rows where none were asked for")),
        }
    }

    /// The rows of a small query, every value as text.
    pub(super) fn texts(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, LaneError> {
        self.ask(command::QUERY, sql.as_bytes())?;
        let columns = packets::count(&self.answer()?).ok_or_else(|| unexpected("no number of columns"))?;
        if columns == 0 {
            return Ok(Vec::new());
        }
        for _ in 0..columns {
            self.answer()?;
        }
        self.end()?;
        let mut rows = Vec::new();
        loop {
            let body = self.answer()?;
            if packets::is_end(&body) {
                return Ok(rows);
            }
            rows.push(packets::texts(&body, columns).ok_or_else(|| unexpected("no row of text"))?);
        }
    }

    /// Begins a query, and tells what its columns are.
    pub(super) fn select(&mut self, sql: &str) -> Result<Vec<Definition>, LaneError> {
        if let Some(statement) = self.statement.take() {
            // Not answered.
            self.ask(command::CLOSE, &statement)?;
        }
        self.ask(command::PREPARE, sql.as_bytes())?;
        let prepared = self.answer()?;
        let Some([OK, s1, s2, s3, s4, c1, c2, p1, p2]) = prepared.first_chunk::<9>() else {
            return Err(unexpected("no answer to a statement"));
        };
        let parameters = u16::from_le_bytes([*p1, *p2]);
        if parameters > 0 {
            let what =
                format!("prepared statement expected {parameters} parameters but 0 parameters were provided");
            return Err(LaneError::Protocol(what));
        }
        if u16::from_le_bytes([*c1, *c2]) == 0 {
            return Err(unexpected("a statement without rows"));
        }
        let statement = [*s1, *s2, *s3, *s4];
        self.statement = Some(statement);
        self.definitions(u64::from(u16::from_le_bytes([*c1, *c2])))?;
        // Without a cursor, once.
        self.ask(command::EXECUTE, &[&statement[..], &[0, 1, 0, 0, 0]].concat())?;
        let count = packets::count(&self.answer()?).ok_or_else(|| unexpected("no number of columns"))?;
        self.definitions(count)
    }

    fn definitions(&mut self, count: u64) -> Result<Vec<Definition>, LaneError> {
        let mut found = Vec::new();
        for _ in 0..count {
            let body = self.answer()?;
            found.push(Definition::parse(&body).ok_or_else(|| unexpected("no definition of a column"))?);
        }
        self.end()?;
        Ok(found)
    }

    /// The next packets of the query that was begun, and the number of their rows; `None` when all is sent and the
    /// server waits again.
    pub(super) fn piece(&mut self) -> Result<Option<(Frames, usize)>, LaneError> {
        let (mut at, mut rows) = (0, 0);
        loop {
            let known = self.inflow.known(at);
            match packets::whole(known)? {
                // Binary rows begin with a zero.
                Some(length) if known.get(HEAD) == Some(&0) && length > HEAD => {
                    at += length;
                    rows += 1;
                    if at < PIECE_BYTES && rows < PIECE_ROWS {
                        continue;
                    }
                }
                Some(_) if at == 0 => {
                    return if packets::is_end(&self.answer()?) {
                        Ok(None)
                    } else {
                        Err(unexpected("no row"))
                    };
                }
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
        // The rows are all there; how the connection ends no longer matters.
        let _ = self.ask(command::QUIT, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::packets::{put, split};
    use super::*;

    pub(super) fn lane(bytes: &[u8]) -> Lane {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bytes = bytes.to_vec();
        std::thread::spawn(move || {
            let (mut there, _) = listener.accept().unwrap();
            // In odd steps, so that packets come in parts.
            let sent = bytes.chunks(40_009).try_for_each(|some| io::Write::write_all(&mut there, some));
            // What the lane says is read, so that the connection ends without a reset.
            let _ = there.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut there, &mut io::sink());
            sent
        });
        Lane::new(Inflow::new(
            inflow::tcp("127.0.0.1", port, Duration::from_secs(5)).unwrap(),
            Box::new(|| false),
        ))
    }

    fn wire(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            put(&mut out, 0, body);
        }
        out
    }

    const ROWS_END: &[u8] = &[0xfe, 0, 0, 2, 0];

    #[test]
    fn rows_come_whole_and_in_order_whatever_the_reads() {
        let row = |n: usize| [&[0][..], &n.to_le_bytes().repeat(1 + n % 400)].concat();
        let mut rows: Vec<Vec<u8>> = (0..10_000).map(row).collect();
        // Longer than a packet, just as long, and one byte short of it.
        for length in [40_000_000, 0xff_ffff, 0xff_fffe, 2 * 0xff_ffff, 1] {
            rows.push([vec![0], (0..251u8).cycle().take(length - 1).collect()].concat());
        }
        let mut bodies: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        bodies.push(ROWS_END);
        let mut lane = lane(&wire(&bodies));
        let mut seen = Vec::new();
        while let Some((piece, count)) = lane.piece().unwrap() {
            let mut rest = piece.bytes();
            for _ in 0..count {
                let (row, behind) = split(rest).unwrap();
                seen.push(row.into_owned());
                rest = behind;
            }
            assert!(rest.is_empty() && count <= PIECE_ROWS);
        }
        assert!(seen == rows, "{} of {}", seen.len(), rows.len());
    }

    #[test]
    fn errors_and_ends_in_mid_rows_are_told() {
        let row: &[u8] = &[0, 0, 7];
        let mut stopped = lane(&wire(&[row, b"\xff\xb1\x07#70100Query was interrupted"]));
        assert_eq!(stopped.piece().unwrap().unwrap().1, 1);
        match stopped.piece() {
            Err(LaneError::Server { number, state, message }) => {
                assert_eq!(
                    (number, state.as_str(), message.as_str()),
                    (1969, "70100", "Query was interrupted")
                );
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
        for cut in [&wire(&[row])[..5], &wire(&[row])[..3], &[]] {
            assert!(matches!(lane(cut).piece(), Err(LaneError::Broken(_))), "{cut:?}");
        }
        for nonsense in [&[][..], &[1], &[0xff], &[0xfe, 0, 0, 0, 0, 0, 0, 0, 0], &[0xfb, 1]] {
            assert!(matches!(lane(&wire(&[nonsense])).piece(), Err(LaneError::Protocol(_))), "{nonsense:?}");
        }
    }

    fn definition(name: &[u8], kind: u8) -> Vec<u8> {
        let mut out = b"\x03def\0\0\0".to_vec();
        out.push(u8::try_from(name.len()).unwrap());
        out.extend_from_slice(name);
        out.extend_from_slice(&[0, 12, 63, 0, 11, 0, 0, 0, kind, 1, 0, 0, 0, 0]);
        out
    }

    #[test]
    fn a_query_is_prepared_and_begun() {
        let column = definition(b"id", 3);
        let said: [&[u8]; 8] = [
            &[0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            &column,
            ROWS_END,
            &[1],
            &column,
            ROWS_END,
            &[0, 0, 1, 0, 0, 0],
            ROWS_END,
        ];
        let mut fine = lane(&wire(&said));
        assert_eq!(fine.select("SELECT id FROM t").unwrap(), [Definition { kind: 3, flags: 1, charset: 63 }]);
        assert_eq!(fine.piece().unwrap().unwrap().1, 1);
        assert!(fine.piece().unwrap().is_none());
        let mut asks = lane(&wire(&[&[0, 9, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]]));
        assert!(
            matches!(asks.select("?, ?"), Err(LaneError::Protocol(what)) if what.contains("2 parameters"))
        );
        // Cut anywhere, and with any byte wrong, it fails or not, but ends.
        let whole = wire(&said);
        for at in 0..whole.len() {
            assert!(lane(&whole[..at]).select("").is_err() || at > whole.len() - 20);
            let mut wrong = whole.clone();
            wrong[at] ^= 0x81;
            let mut lane = lane(&wrong);
            if lane.select("").is_ok() {
                while let Ok(Some(_)) = lane.piece() {}
            }
        }
    }

    #[test]
    fn small_answers() {
        let said: [&[u8]; 7] = [
            &[2],
            &definition(b"a", 0xfd),
            &definition(b"b", 0xfd),
            ROWS_END,
            b"\x01x\xfb",
            b"\0\x02yz",
            ROWS_END,
        ];
        let rows = lane(&wire(&said)).texts("SHOW").unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(rows, [[text("x"), None], [text(""), text("yz")]]);
        assert!(lane(&wire(&[&[0, 0, 0, 2, 0, 0, 0]])).run("SET x = 1").is_ok());
        assert!(lane(&wire(&said)).run("SET x = 1").is_err());
        assert!(lane(&wire(&[b"\xff\x28\x04#42000syntax"])).run("SET").is_err());
    }
}
