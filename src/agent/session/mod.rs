//! The conversation of two agents about one table: who sends what, how long is waited, and how much is held.
//!
//! A session is always ready to receive while it sends. What arrives meanwhile waits in its inbox, which is bounded, so
//! that two ends that send at the same time cannot wait for each other, however narrow the link is. Every wait ends:
//! with a frame, or with an error when the peer has been silent for too long. Work that takes long shows the peer that
//! it goes on ([`Session::working`]).
//!
//! ```text
//! target (drives)                                   source (answers)
//!   Open(plan, session key)                   ──►
//!                                             ◄──   Accepted; Progress …; Scanned(root, rows)
//!   Locate …                                  ◄─►   Locate …                (both at once: `exchange`)
//!   Fetch(keys)                               ──►
//!                                             ◄──   Rows …                  (several may be asked for ahead)
//!   StreamRun(run)                            ──►
//!                                             ◄──   Rows …, Unfound …, Rows (empty)
//!   Rescan                                    ──►
//!                                             ◄──   Progress …; Moved …
//!   Conclude (before writes, and at the end)  ──►
//!                                             ◄──   Concluded
//!   Close                                     ──►
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::error::{AgentError, FailureKind};
use super::proto::{Rows, frame::Kind};
use crate::locate::{self, LocateError, Locator, Step};
use crate::merkle::{RunView, SessionKey};
use crate::model::Role;

pub(crate) mod link;
pub(crate) mod patch;
pub(crate) mod varint;
pub mod wire;

use link::{Link, LinkCounts, peer_gone};
use wire::{ANSWER_BYTES_MAX, Distance, FRAME_BYTES};

/// A peer that waits for work of this end hears something this often.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Frames of a source that wait while its target sends: the answers to all questions that are on their way.
const INBOX_BYTES_OF_SOURCE: usize = ANSWER_BYTES_MAX + (32 << 20);
/// Frames of a target that wait while its source sends: questions.
const INBOX_BYTES_OF_TARGET: usize = 20 << 20;
/// Frames that wait, whatever their size.
const INBOX_FRAMES: usize = 4_096;

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Session {
    link: Link,
    inbox: VecDeque<Kind>,
    inbox_bytes: usize,
    /// The peer has closed its half.
    ended: bool,
}

/// Why an exchange of locate messages ended.
#[derive(Debug)]
pub(crate) enum Exchanged {
    /// The locator has its outcome, and everything was sent.
    Done,
    /// The peer said something else.
    Other(Kind),
    /// The peer closed the link.
    Ended,
}

pub(crate) fn out_of_order(peer: Role) -> AgentError {
    AgentError::protocol(format!("the {peer} agent sent a frame out of order"))
}

pub(crate) fn locate_error(error: LocateError) -> AgentError {
    match error {
        LocateError::Run(error) => super::scan::run_error("read the digest run", &error),
        LocateError::Protocol(why) => AgentError::protocol(format!("{error}: {why}")),
        LocateError::Unproven { .. } | LocateError::Misuse(_) => AgentError::protocol(error.to_string()),
    }
}

impl Session {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, inbox: VecDeque::new(), inbox_bytes: 0, ended: false }
    }

    pub(crate) fn counts(&self) -> LinkCounts {
        self.link.counts()
    }

    pub(crate) fn distance(&self) -> Distance {
        self.link.distance()
    }

    /// Sends one frame, and keeps what arrives while the link has no room for it.
    pub(crate) async fn send(&mut self, kind: Kind) -> Result<(), AgentError> {
        let sender = self.link.sender();
        let deadline = Instant::now() + self.link.silence_max();
        loop {
            tokio::select! {
                biased;
                room = sender.reserve() => {
                    room?.send(kind, 0);
                    return Ok(());
                }
                frame = self.link.recv_or_end(), if !self.ended => match frame? {
                    Some(kind) => self.keep(kind)?,
                    None => self.ended = true,
                },
                () = tokio::time::sleep_until(deadline), if self.ended => return Err(peer_gone().on(self.link.peer())),
            }
        }
    }

    /// Tells the peer why this end gives up; waits for room only for a moment.
    pub(crate) async fn fail(&mut self, error: &AgentError) {
        self.link.sender().fail(error).await;
    }

    /// Tells the peer that this end leaves; waits for room only for a moment.
    pub(crate) async fn close(&mut self) {
        let close = Kind::Close(super::proto::Close {});
        let _ = tokio::time::timeout(HEARTBEAT_EVERY, self.send(close)).await;
    }

    fn keep(&mut self, kind: Kind) -> Result<(), AgentError> {
        // That the peer works is known by now.
        if matches!(kind, Kind::Progress(_)) {
            return Ok(());
        }
        self.inbox_bytes += kind.encoded_len();
        self.inbox.push_back(kind);
        let most = match self.link.peer() {
            Role::Source => INBOX_BYTES_OF_SOURCE,
            Role::Target => INBOX_BYTES_OF_TARGET,
        };
        if self.inbox_bytes > most || self.inbox.len() > INBOX_FRAMES {
            let peer = self.link.peer();
            return Err(
                AgentError::protocol(format!("the {peer} agent sent more than it was asked for")).on(peer)
            );
        }
        Ok(())
    }

    /// Puts a frame back, to be received first.
    pub(crate) fn unread(&mut self, kind: Kind) {
        self.inbox_bytes += kind.encoded_len();
        self.inbox.push_front(kind);
    }

    /// The next frame; `None` where the peer has closed the link.
    pub(crate) async fn recv_or_end(&mut self) -> Result<Option<Kind>, AgentError> {
        if let Some(kind) = self.inbox.pop_front() {
            self.inbox_bytes = self.inbox_bytes.saturating_sub(kind.encoded_len());
            return Ok(Some(kind));
        }
        if self.ended {
            return Ok(None);
        }
        let received = self.link.recv_or_end().await?;
        self.ended = received.is_none();
        Ok(received)
    }

    /// The next frame; a closed link is an error.
    pub(crate) async fn recv(&mut self) -> Result<Kind, AgentError> {
        let peer = self.link.peer();
        self.recv_or_end().await?.ok_or_else(|| peer_gone().on(peer))
    }

    /// The next frame that is more than a sign that the peer still works.
    pub(crate) async fn recv_answer(&mut self) -> Result<Kind, AgentError> {
        loop {
            match self.recv().await? {
                Kind::Progress(_) => {}
                kind => return Ok(kind),
            }
        }
    }

    /// Works, and shows the peer meanwhile that this end is alive.
    pub(crate) async fn working<T>(
        &mut self,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        tokio::pin!(work);
        let sender = self.link.sender();
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(HEARTBEAT_EVERY) => {
                    // Where the link is full the peer has something to read already.
                    if let Some(room) = sender.try_reserve() {
                        room.send(Kind::Progress(0), 0);
                    }
                }
            }
        }
    }

    /// Tells the peer how many rows were scanned, if the link has room.
    pub(crate) fn report_progress(&self, rows: u64) {
        if let Some(room) = self.link.sender().try_reserve() {
            room.send(Kind::Progress(rows), 0);
        }
    }

    /// Both locators talk until this one has its outcome: what the link has room for is sent, what comes is received, and
    /// neither waits for the other. `take` gets each step.
    pub(crate) async fn exchange<V: RunView>(
        &mut self,
        locator: &mut Locator<V>,
        take: &mut (dyn FnMut(Step) -> Result<(), AgentError> + Send),
    ) -> Result<Exchanged, AgentError> {
        let sender = self.link.sender();
        // For each message that waits in the locator: how often the link was crossed until it could be made.
        let mut hops: VecDeque<u32> = std::iter::repeat_n(1, locator.queued()).collect();
        let mut outgoing = None;
        loop {
            if outgoing.is_none()
                && let Some(message) = locator.next_outgoing().map_err(locate_error)?
            {
                let hop = hops.pop_front().unwrap_or_else(|| self.link.hop().saturating_add(1));
                outgoing = Some((Kind::Locate(message.encode().into()), hop));
            }
            if outgoing.is_none() && locator.outcome().is_some() {
                return Ok(Exchanged::Done);
            }
            let received = if self.inbox.is_empty() && !self.ended {
                tokio::select! {
                    biased;
                    room = sender.reserve(), if outgoing.is_some() => {
                        if let (room, Some((kind, hop))) = (room?, outgoing.take()) {
                            room.send(kind, hop);
                        }
                        continue;
                    }
                    received = self.recv_or_end() => received?,
                }
            } else {
                self.recv_or_end().await?
            };
            match received {
                Some(Kind::Locate(bytes)) => {
                    receive(locator, &bytes, take)?;
                    let hop = self.link.hop().saturating_add(1);
                    hops.resize(locator.queued(), hop);
                }
                Some(Kind::Progress(_)) => {}
                Some(kind) => return Ok(Exchanged::Other(kind)),
                None => return Ok(Exchanged::Ended),
            }
        }
    }

    /// Sends what was packed, in frames of bounded size.
    pub(crate) async fn send_packed(&mut self, packed: Vec<u8>) -> Result<(), AgentError> {
        let mut rest = Bytes::from(packed);
        loop {
            let part = rest.split_to(rest.len().min(FRAME_BYTES));
            let last = rest.is_empty();
            self.send(Kind::Rows(Rows { rows: part, last })).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// One packed answer, put together from its frames; `first` is a frame of it that was received already.
    pub(crate) async fn receive_packed(&mut self, first: Option<Rows>) -> Result<Vec<u8>, AgentError> {
        let mut packed = Vec::new();
        let mut next = first;
        loop {
            let part = match next.take() {
                Some(part) => part,
                None => match self.recv_answer().await? {
                    Kind::Rows(part) => part,
                    _ => return Err(out_of_order(self.link.peer())),
                },
            };
            if packed.len() + part.rows.len() > ANSWER_BYTES_MAX {
                return Err(too_large(self.link.peer()));
            }
            packed.extend_from_slice(&part.rows);
            if part.last {
                return Ok(packed);
            }
        }
    }

    /// Whether the peer's table is still the one that was scanned; it says why where it is not.
    pub(crate) async fn conclude(&mut self) -> Result<(), AgentError> {
        self.send(Kind::Conclude(super::proto::Conclude {})).await?;
        match self.recv_answer().await? {
            Kind::Concluded(_) => Ok(()),
            _ => Err(out_of_order(self.link.peer())),
        }
    }
}

/// The key that a target sends with its plan.
pub(crate) fn session_key(bytes: &[u8]) -> Result<SessionKey, AgentError> {
    let key: [u8; 32] =
        bytes.try_into().map_err(|_| AgentError::protocol("the session key has another length"))?;
    Ok(SessionKey::new(key))
}

/// A key for one conversation.
pub(crate) fn random_key() -> Result<[u8; 32], AgentError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| {
        AgentError::new(FailureKind::Resource, format!("the system has no randomness: {error}"))
    })?;
    Ok(key)
}

/// A row or an answer beyond what is held at once.
pub(crate) fn too_large(side: Role) -> AgentError {
    let most = ANSWER_BYTES_MAX >> 20;
    AgentError::new(
        FailureKind::Resource,
        format!("a row is larger than the {most} MiB that are held at once"),
    )
    .with_hint("leave its large column out with --exclude")
    .on(side)
}

fn receive<V: RunView>(
    locator: &mut Locator<V>,
    bytes: &Bytes,
    take: &mut (dyn FnMut(Step) -> Result<(), AgentError> + Send),
) -> Result<(), AgentError> {
    let message = locate::Message::decode(bytes).map_err(|error| locate_error(error.into()))?;
    let mut step = locator.receive(message).map_err(locate_error)?;
    loop {
        let more = step.more;
        take(step)?;
        if !more {
            return Ok(());
        }
        step = locator.resume().map_err(locate_error)?;
    }
}

#[cfg(test)]
mod tests;
