//! The link to the other agent: an ordered, bounded pipe of frames that counts what passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::wire::Distance;
use crate::agent::error::{AgentError, FailureKind};
use crate::agent::proto::{Failure, Frame, frame::Kind};
use crate::model::Role;

/// Frames that may wait in one direction: backpressure end to end, and enough to keep a long link busy.
pub(crate) const FRAMES_IN_FLIGHT: usize = 8;

/// An end that gives up waits so long for room to say why.
const FAIL_TIMEOUT: Duration = Duration::from_secs(5);

/// gRPC puts one flag byte and a four-byte length before each message.
const GRPC_PREFIX_BYTES: u64 = 5;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    /// Crossings of the link that could only come one after the other, there and back, while locating.
    pub round_trips: u64,
}

/// Sends frames, and counts them.
#[derive(Debug, Clone)]
pub struct LinkSender {
    tx: mpsc::Sender<Frame>,
    bytes: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
    peer: Role,
}

impl LinkSender {
    /// Room for one frame, once there is.
    pub(crate) async fn reserve(&self) -> Result<Room<'_>, AgentError> {
        let permit = self.tx.reserve().await.map_err(|_| peer_gone().on(self.peer))?;
        Ok(Room { sender: self, permit })
    }

    /// Tells the peer why this end gives up, if there is room for it before long.
    pub(crate) async fn fail(&self, error: &AgentError) {
        let failure = Failure {
            kind: error.kind.as_str().to_owned(),
            message: error.message.clone(),
            hint: error.hint.clone().unwrap_or_default(),
        };
        // The peer may be gone; then there is nobody to tell.
        if let Ok(Ok(room)) = tokio::time::timeout(FAIL_TIMEOUT, self.reserve()).await {
            room.send(Kind::Failure(failure), 0);
        }
    }

    /// Room for one frame, if there is any now.
    pub(crate) fn try_reserve(&self) -> Option<Room<'_>> {
        self.tx.try_reserve().ok().map(|permit| Room { sender: self, permit })
    }
}

/// A place in the link that one frame will take.
pub(crate) struct Room<'s> {
    sender: &'s LinkSender,
    permit: mpsc::Permit<'s, Frame>,
}

impl Room<'_> {
    /// `hop` counts the crossings of the link that came one after the other; 0 for what is no locate message.
    pub(crate) fn send(self, kind: Kind, hop: u32) {
        let frame = Frame { kind: Some(kind), hop };
        let bytes = frame.encoded_len() as u64 + GRPC_PREFIX_BYTES;
        self.sender.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sender.messages.fetch_add(1, Ordering::Relaxed);
        self.permit.send(frame);
    }
}

/// One end of an exchange.
pub struct Link {
    sender: LinkSender,
    /// In a mutex only so that a link can be shared by reference; it is never locked.
    rx: Mutex<BoxStream<'static, Result<Frame, AgentError>>>,
    counts: LinkCounts,
    /// Of the locate message that was received last.
    hop: u32,
    /// A peer silent for this long has stopped answering.
    silence_max: Duration,
    /// When the wait for the next frame began; it goes on where the future that waited was dropped.
    waiting: Option<Instant>,
    peer: Role,
    distance: Distance,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

pub(crate) fn peer_gone() -> AgentError {
    AgentError::new(FailureKind::Unreachable, "the connection to the peer agent closed in mid-conversation")
        .with_hint("see the other agent's log; then run the command again, it is safe to repeat")
}

impl Link {
    /// A link whose peer plays `peer`, over any pair of pipes.
    pub fn new(
        tx: mpsc::Sender<Frame>,
        rx: BoxStream<'static, Result<Frame, AgentError>>,
        peer: Role,
        silence_max: Duration,
    ) -> Self {
        let sender = LinkSender { tx, bytes: Arc::default(), messages: Arc::default(), peer };
        Self {
            sender,
            rx: Mutex::new(rx),
            counts: LinkCounts::default(),
            hop: 0,
            silence_max,
            waiting: None,
            peer,
            distance: Distance::Far,
        }
    }

    /// Two ends in one process: the target's, then the source's.
    pub fn pair(silence_max: Duration) -> (Self, Self) {
        Self::pair_with_room(FRAMES_IN_FLIGHT, silence_max)
    }

    /// The same with room for so many frames in each direction.
    pub fn pair_with_room(frames: usize, silence_max: Duration) -> (Self, Self) {
        let (to_source, from_target) = mpsc::channel(frames);
        let (to_target, from_source) = mpsc::channel(frames);
        let end = |tx, rx, peer| {
            let link = Self::new(tx, ReceiverStream::new(rx).map(Ok).boxed(), peer, silence_max);
            Self { distance: Distance::SameProcess, ..link }
        };
        (end(to_source, from_source, Role::Source), end(to_target, from_target, Role::Target))
    }

    pub fn distance(&self) -> Distance {
        self.distance
    }

    /// The end that answers waits long: its peer may be scanning for hours, and a dead peer is the transport's to notice.
    pub fn expect_silence(&mut self, silence_max: Duration) {
        self.silence_max = silence_max;
    }

    pub fn sender(&self) -> LinkSender {
        self.sender.clone()
    }

    pub(crate) fn peer(&self) -> Role {
        self.peer
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.silence_max
    }

    /// Of the locate message that was received last.
    pub(crate) fn hop(&self) -> u32 {
        self.hop
    }

    /// The next frame; `None` where the peer has closed the link in good order. A `Failure` frame becomes the error it
    /// tells; silence is an error.
    pub async fn recv_or_end(&mut self) -> Result<Option<Kind>, AgentError> {
        let rx = self.rx.get_mut().unwrap_or_else(PoisonError::into_inner);
        let until = *self.waiting.get_or_insert_with(Instant::now) + self.silence_max;
        let next = tokio::time::timeout_at(until, rx.next()).await.map_err(|_| {
            AgentError::new(
                FailureKind::Timeout,
                format!("the {} agent has not answered for {} s", self.peer, self.silence_max.as_secs()),
            )
            .with_hint("look whether its database is blocked; raise --peer-timeout if it is only slow")
            .on(self.peer)
        })?;
        self.waiting = None;
        let next = next.transpose().map_err(|error| error.on(self.peer))?;
        let Some(frame) = next else { return Ok(None) };
        self.counts.bytes_received += frame.encoded_len() as u64 + GRPC_PREFIX_BYTES;
        self.counts.messages_received += 1;
        if let Some(Kind::Locate(_)) = frame.kind {
            self.hop = frame.hop;
            self.counts.round_trips = self.counts.round_trips.max(u64::from(frame.hop.div_ceil(2)));
        }
        match frame.kind {
            Some(Kind::Failure(failure)) => Err(AgentError {
                kind: FailureKind::from_name(&failure.kind),
                side: Some(self.peer),
                message: failure.message,
                hint: (!failure.hint.is_empty()).then_some(failure.hint),
            }),
            Some(kind) => Ok(Some(kind)),
            None => Err(AgentError::protocol("the peer sent an empty frame").on(self.peer)),
        }
    }

    pub fn counts(&self) -> LinkCounts {
        LinkCounts {
            bytes_sent: self.sender.bytes.load(Ordering::Relaxed),
            messages_sent: self.sender.messages.load(Ordering::Relaxed),
            ..self.counts
        }
    }
}
