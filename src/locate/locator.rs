//! One side of the conversation as a state machine.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::classify::{Classifier, Finding, Worked};
use super::error::{LocateError, ProtocolError};
use super::frontier::{Compared, Own, Width};
use super::message::{Answer, End, Frontier, Gap, List, Message, MissingRun, Mode, Open, Window};
use super::spans::{Span, Spans};
use crate::merkle::{EntryBatch, RootDigest, RunView, Tree};

/// Frontiers and findings are cut where they reach about this size.
const MESSAGE_BYTES: usize = 32 * 1024;
/// Findings of one step; more wait for [`Locator::resume`].
const FINDINGS_PER_STEP: usize = 4096;
/// Shorter stretches that face no row are listed all the same.
const BULK_ROWS: u64 = 1024;
const READ_ENTRIES: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    Target,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct LocateOptions {
    /// Target: the source may announce long stretches without target rows by their bounds; the proof then waits
    /// until they are filled.
    pub bulk: bool,
    /// Target: short digests of the first round other than the usual, for tests that want them to collide.
    pub first_window: Option<Window>,
}

/// What one message, or one [`Locator::resume`], has brought.
#[derive(Debug, Default)]
pub struct Step {
    /// Target: differing rows, in key order over the steps of a round.
    pub findings: Vec<Finding>,
    /// Target: stretches of the source that face no row here.
    pub missing_runs: Vec<MissingRun>,
    /// Target: findings wait; call [`Locator::resume`] before the next message.
    pub more: bool,
    /// Target: what was found so far is void, and is found again in another round.
    pub restarted: bool,
    pub progress: Progress,
    pub done: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub round: u8,
    /// Segments the other side has to answer for, and the own rows in them.
    pub open_segments: u64,
    pub open_rows: u64,
    /// Own rows without a match so far.
    pub unmatched_rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The roots were the same from the start.
    Equal,
    /// The target's run with the findings laid over it has the source's root.
    Proved,
    /// Runs were announced by their bounds; compare the roots when they are filled.
    Deferred,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub source_root: RootDigest,
    pub target_root: RootDigest,
    pub source_count: u64,
    pub target_count: u64,
    pub proof: Proof,
    /// Rounds it took, at least one.
    pub rounds: u8,
}

/// A list that was sent and waits for its reply.
struct Asked {
    rows: Range<u64>,
    mode: Mode,
    /// Lists in the reply are of a lower level.
    below: u8,
    /// How many lists of rows around these came before.
    step: u8,
}

enum Phase<V> {
    Idle,
    Locating,
    /// Source: gives its findings.
    Telling(Telling),
    /// Source: waits for the target's last word.
    Told,
    /// Target: takes the source's findings.
    Hearing(Box<Classifier<V>>),
    Done,
}

/// What is left to be told.
struct Telling {
    spans: VecDeque<Span>,
}

/// One side of the conversation. Feed it with [`Locator::receive`], and send what [`Locator::next_outgoing`] gives
/// until it gives nothing.
pub struct Locator<V> {
    role: Role,
    own: Own<V>,
    round: u8,
    window: Window,
    bulk: bool,
    phase: Phase<V>,
    asked: VecDeque<Asked>,
    open_rows: u64,
    outbox: VecDeque<Message>,
    unmatched: Spans,
    peer: Option<(RootDigest, u64)>,
    /// Source: the stretches announced as missing runs in this round.
    runs: Vec<Range<u64>>,
    outcome: Option<Outcome>,
}

impl<V: RunView> Locator<V> {
    pub fn new(
        role: Role,
        view: Arc<V>,
        tree: Arc<Tree>,
        options: LocateOptions,
    ) -> Result<Self, LocateError> {
        if view.len() != tree.count() {
            return Err(LocateError::Misuse("run and tree do not belong together"));
        }
        Ok(Self {
            role,
            own: Own { view, tree },
            round: 0,
            window: options.first_window.unwrap_or(Window::of_round(0)),
            bulk: options.bulk,
            phase: Phase::Idle,
            asked: VecDeque::new(),
            open_rows: 0,
            outbox: VecDeque::new(),
            unmatched: Spans::default(),
            peer: None,
            runs: Vec::new(),
            outcome: None,
        })
    }

    /// The target begins; the source waits.
    pub fn start(&mut self) -> Result<(), LocateError> {
        if !matches!(self.phase, Phase::Idle) || self.outcome.is_some() {
            return Err(LocateError::Misuse("started twice"));
        }
        if !self.window.is_valid() {
            return Err(LocateError::Misuse("short digests of such widths do not exist"));
        }
        if self.role == Role::Target {
            self.open()?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), LocateError> {
        let list = self.ask(0..self.own.len(), u8::MAX, 0, Width::FIRST)?;
        self.outbox.push_back(Message::Open(Open {
            round: self.round,
            root: self.own.tree.root(),
            count: self.own.len(),
            bulk: self.bulk,
            window: self.window,
            list,
        }));
        self.phase = Phase::Locating;
        Ok(())
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Source: the own entries of an announced run; read them from the view.
    pub fn missing_run(&self, run_id: u32) -> Option<Range<u64>> {
        self.runs.get(usize::try_from(run_id).ok()?).cloned()
    }

    pub fn view(&self) -> &Arc<V> {
        &self.own.view
    }

    /// The next message to send; `None` until something is received.
    pub fn next_outgoing(&mut self) -> Result<Option<Message>, LocateError> {
        if let Some(message) = self.outbox.pop_front() {
            return Ok(Some(message));
        }
        if !matches!(self.phase, Phase::Telling(_)) {
            return Ok(None);
        }
        let message = self.tell()?;
        if matches!(message, Message::End(_)) {
            self.phase = Phase::Told;
        }
        Ok(Some(message))
    }

    pub fn receive(&mut self, message: Message) -> Result<Step, LocateError> {
        let mut step = Step::default();
        let name = message.name();
        match (self.role, message) {
            (Role::Source, Message::Open(open)) => self.receive_open(open)?,
            (_, Message::Frontier(frontier)) if matches!(self.phase, Phase::Locating) => {
                self.receive_frontier(frontier)?;
            }
            (Role::Target, Message::Equal) if self.expects_equal() => {
                self.asked.clear();
                self.open_rows = 0;
                self.finish(Some((self.own.tree.root(), self.own.len())), Proof::Equal);
            }
            (Role::Target, Message::Findings(entries)) => self.hearing(name)?.take_entries(entries)?,
            (Role::Target, Message::MissingRun(run)) if self.bulk => self.hearing(name)?.take_run(run)?,
            (Role::Target, Message::End(end)) => self.hearing(name)?.take_end(end),
            (Role::Source, Message::Closed) if matches!(self.phase, Phase::Told) => {
                let proof = if self.runs.is_empty() { Proof::Proved } else { Proof::Deferred };
                self.finish(self.peer, proof);
            }
            _ => return Err(unexpected(name, "not at this point of the conversation").into()),
        }
        self.work(&mut step)?;
        Ok(step)
    }

    /// Target: goes on where a step had more findings than it could hold.
    pub fn resume(&mut self) -> Result<Step, LocateError> {
        let mut step = Step::default();
        self.work(&mut step)?;
        Ok(step)
    }

    fn expects_equal(&self) -> bool {
        self.round == 0
            && matches!(self.phase, Phase::Locating)
            && self.asked.len() == 1
            && self.outbox.is_empty()
    }

    fn receive_open(&mut self, open: Open) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("open", why).into());
        match self.phase {
            Phase::Idle if open.round == 0 && self.outcome.is_none() => {}
            Phase::Told if open.round == self.round + 1 && open.round < Window::ROUNDS => {}
            _ => return refused("not at this point of the conversation"),
        }
        if !open.window.is_valid() {
            return refused("width of short digests");
        }
        if open.list.mode == Mode::Yours || (open.count == 0) != open.list.items.is_empty() {
            return refused("a list that does not show the table");
        }
        self.round = open.round;
        self.window = open.window;
        self.bulk = open.bulk;
        self.runs.clear();
        self.unmatched.take();
        self.peer = Some((open.root, open.count));
        if open.root == self.own.tree.root() {
            if open.count != self.own.len() {
                return refused("same root, other count");
            }
            self.outbox.push_back(Message::Equal);
            self.finish(self.peer, Proof::Equal);
            return Ok(());
        }
        self.phase = Phase::Locating;
        let items = open.list.items.len();
        let pieces = self.compare(0..self.own.len(), &open.list)?;
        let width = Width::after_open(pieces.iter().filter(|piece| piece.is_open()).count(), items);
        let mut writer = FrontierWriter::new(self.window);
        let below = match open.list.mode {
            Mode::Nodes(level) => level,
            _ => 0,
        };
        let gaps = self.answer(pieces, below, 1, width)?;
        writer.push(gaps, &mut self.outbox);
        writer.finish(&mut self.outbox);
        self.look_whether_located();
        Ok(())
    }

    fn receive_frontier(&mut self, frontier: Frontier) -> Result<(), LocateError> {
        if frontier.window != self.window {
            return Err(unexpected("frontier", "another width of short digests").into());
        }
        if frontier.replies.is_empty() || frontier.replies.len() > self.asked.len() {
            return Err(unexpected("frontier", "replies to lists that were not sent").into());
        }
        let mut segments = Vec::new();
        for gaps in frontier.replies {
            if let Some(asked) = self.asked.pop_front() {
                self.open_rows -= asked.rows.end - asked.rows.start;
                self.take_reply(asked, gaps, &mut segments)?;
            }
        }
        let mut writer = FrontierWriter::new(self.window);
        for segment in segments {
            let pieces = match segment.list.mode {
                Mode::Yours => vec![Compared::asked_for(segment.rows.clone())],
                _ => self.compare(segment.rows.clone(), &segment.list)?,
            };
            let below = match segment.list.mode {
                Mode::Nodes(level) => level,
                _ => segment.below,
            };
            let width = if segment.list.mode == Mode::Yours { Width::ASKED_FOR } else { Width::Paced };
            let gaps = self.answer(pieces, below, segment.step.saturating_add(1), width)?;
            writer.push(gaps, &mut self.outbox);
        }
        writer.finish(&mut self.outbox);
        self.look_whether_located();
        Ok(())
    }

    /// Reads the reply to one own list: what it settles, and the lists it holds.
    fn take_reply(
        &mut self,
        asked: Asked,
        gaps: Vec<Gap>,
        segments: &mut Vec<Segment>,
    ) -> Result<(), LocateError> {
        let refused = |why| Err(unexpected("frontier", why).into());
        if asked.mode == Mode::Yours {
            // The one gap of such a reply is the whole segment.
            let mut gaps = gaps.into_iter();
            let (Some(Gap { skip: 0, len: 0, answer: Answer::Open(list) }), None) =
                (gaps.next(), gaps.next())
            else {
                return refused("no list where one was asked for");
            };
            return self.take_list(asked.rows, list, (asked.below, asked.step), false, segments);
        }
        let nodes = match asked.mode {
            Mode::Nodes(level) => Some((level, self.own.tree.nodes(usize::from(level), asked.rows.clone())?)),
            _ => None,
        };
        let items = match &nodes {
            Some((_, nodes)) => nodes.len() as u64,
            None => asked.rows.end - asked.rows.start,
        };
        let mut at = 0u64;
        for gap in gaps {
            let start = at + u64::from(gap.skip);
            let end = start + u64::from(gap.len);
            if gap.len == 0 || end > items {
                return refused("a gap outside of the list");
            }
            at = end;
            let rows = match &nodes {
                Some((level, nodes)) => {
                    let place =
                        |item: u64| usize::try_from(item).map_or(nodes.end, |item| nodes.start + item);
                    self.own.tree.span(usize::from(*level), place(start)..place(end))
                }
                None => asked.rows.start + start..asked.rows.start + end,
            };
            match (gap.answer, &nodes) {
                (Answer::Absent, _) => self.unmatched.add(rows, true),
                (Answer::Facing, _) => self.unmatched.add(rows, false),
                (Answer::Open(list), Some((level, _))) => {
                    self.take_list(rows, list, (*level, asked.step.saturating_add(1)), true, segments)?
                }
                _ => return refused("an answer of the wrong kind"),
            }
        }
        Ok(())
    }

    fn take_list(
        &self,
        rows: Range<u64>,
        list: List,
        (below, step): (u8, u8),
        yours_allowed: bool,
        segments: &mut Vec<Segment>,
    ) -> Result<(), LocateError> {
        let fits = match list.mode {
            Mode::Nodes(level) => level < below && !list.items.is_empty(),
            Mode::Entries => !list.items.is_empty(),
            Mode::Yours => yours_allowed,
        };
        if !fits {
            return Err(unexpected("frontier", "a list that leads nowhere").into());
        }
        segments.push(Segment { rows, list, below, step });
        Ok(())
    }

    /// Compares a list of the peer with the own side of the segment. What is on the own side only is settled here.
    fn compare(&mut self, rows: Range<u64>, list: &List) -> Result<Vec<Compared>, LocateError> {
        let mut compared = self.own.compare(rows, list, self.window)?;
        compared.retain(|piece| {
            if piece.peer.is_empty() {
                self.unmatched.add(piece.rows.clone(), true);
            }
            !piece.peer.is_empty()
        });
        for piece in &compared {
            if piece.is_final() {
                self.unmatched.add(piece.rows.clone(), false);
            }
        }
        Ok(compared)
    }

    /// Makes the reply to one list, and notes the lists it asks with.
    fn answer(
        &mut self,
        pieces: Vec<Compared>,
        below: u8,
        step: u8,
        width: Width,
    ) -> Result<Vec<Gap>, LocateError> {
        let mut gaps = Vec::with_capacity(pieces.len());
        let mut at = 0;
        let small =
            |n: usize| u32::try_from(n).map_err(|_| LocateError::Misuse("a list of four thousand million"));
        for piece in pieces {
            let answer = if piece.rows.is_empty() {
                Answer::Absent
            } else if piece.is_final() {
                Answer::Facing
            } else if piece.peer_is_small && !self.own.is_soon_shown(&piece.rows, below)? {
                self.note(piece.rows.clone(), Mode::Yours, below, step);
                Answer::Open(List { mode: Mode::Yours, items: Vec::new() })
            } else {
                Answer::Open(self.ask(piece.rows.clone(), below, step, width)?)
            };
            gaps.push(Gap { skip: small(piece.peer.start - at)?, len: small(piece.peer.len())?, answer });
            at = piece.peer.end;
        }
        Ok(gaps)
    }

    /// Lists the own side of a segment.
    fn ask(&mut self, rows: Range<u64>, below: u8, step: u8, width: Width) -> Result<List, LocateError> {
        let mode = self.own.choose(&rows, below, width.nodes(rows.end - rows.start, step))?;
        let list = self.own.list(rows.clone(), mode, self.window)?;
        self.note(rows, mode, below, step);
        Ok(list)
    }

    fn note(&mut self, rows: Range<u64>, mode: Mode, below: u8, step: u8) {
        self.open_rows += rows.end - rows.start;
        self.asked.push_back(Asked { rows, mode, below, step });
    }

    /// Every open segment waits in one side's queue of sent lists, so an empty queue here, with everything received
    /// answered, means that none is open.
    fn look_whether_located(&mut self) {
        if self.role == Role::Source && self.asked.is_empty() {
            self.phase = Phase::Telling(Telling { spans: self.unmatched.take().into() });
        }
    }

    /// Source: the next of its findings, or the end.
    fn tell(&mut self) -> Result<Message, LocateError> {
        let Phase::Telling(telling) = &mut self.phase else {
            return Err(LocateError::Misuse("nothing to tell"));
        };
        let is_run = |span: &Span| self.bulk && span.alone && span.rows.end - span.rows.start >= BULK_ROWS;
        let mut chunk = EntryBatch::new();
        while let Some(span) = telling.spans.front_mut() {
            if is_run(span) {
                if !chunk.is_empty() {
                    break;
                }
                let rows = span.rows.clone();
                telling.spans.pop_front();
                let run_id = u32::try_from(self.runs.len())
                    .map_err(|_| LocateError::Misuse("more runs than four thousand million"))?;
                let first = self.own.key_at(rows.start)?;
                let last = self.own.key_at(rows.end - 1)?;
                self.runs.push(rows.clone());
                return Ok(Message::MissingRun(MissingRun {
                    run_id,
                    count: rows.end - rows.start,
                    first,
                    last,
                }));
            }
            let end = span.rows.end.min(span.rows.start + READ_ENTRIES);
            let mut taken = 0;
            self.own.view.for_each_entry(span.rows.start..end, &mut |key, digest| {
                if chunk.key_bytes() + chunk.len() * 16 < MESSAGE_BYTES {
                    chunk.push(key, digest);
                    taken += 1;
                }
                Ok(())
            })?;
            span.rows.start += taken;
            if span.rows.is_empty() {
                telling.spans.pop_front();
            }
            if taken == 0 {
                break;
            }
        }
        if chunk.is_empty() {
            return Ok(Message::End(End { root: self.own.tree.root(), count: self.own.len() }));
        }
        Ok(Message::Findings(chunk))
    }

    /// Target: the source tells its findings once no list waits for a reply.
    fn hearing(&mut self, message: &'static str) -> Result<&mut Classifier<V>, LocateError> {
        if matches!(self.phase, Phase::Locating) && self.asked.is_empty() && self.outbox.is_empty() {
            let spans = self.unmatched.take();
            self.phase = Phase::Hearing(Box::new(Classifier::new(
                Arc::clone(&self.own.view),
                Arc::clone(&self.own.tree),
                spans,
            )));
        }
        match &mut self.phase {
            Phase::Hearing(classifier) => Ok(classifier),
            _ => Err(unexpected(message, "segments are open").into()),
        }
    }

    fn work(&mut self, step: &mut Step) -> Result<(), LocateError> {
        if let Phase::Hearing(classifier) = &mut self.phase {
            match classifier.work(FINDINGS_PER_STEP, &mut step.findings, &mut step.missing_runs)? {
                Worked::Through => {}
                Worked::Full => step.more = true,
                Worked::Ended(end) => self.conclude(end, step)?,
            }
        }
        step.progress = Progress {
            round: self.round,
            open_segments: self.asked.len() as u64,
            open_rows: self.open_rows,
            unmatched_rows: self.unmatched.rows(),
        };
        step.done = self.outcome;
        Ok(())
    }

    /// Target: are the findings the whole difference?
    fn conclude(&mut self, end: End, step: &mut Step) -> Result<(), LocateError> {
        let Phase::Hearing(classifier) = std::mem::replace(&mut self.phase, Phase::Done) else {
            return Ok(());
        };
        let proof = if classifier.is_spoiled() {
            // Colliding digests have set rows against the wrong ones; bounds are not to be relied on this time.
            self.bulk = false;
            None
        } else if !classifier.is_complete() {
            Some(Proof::Deferred)
        } else {
            (classifier.root()? == end.root).then_some(Proof::Proved)
        };
        match proof {
            Some(proof) => {
                self.outbox.push_back(Message::Closed);
                self.finish(Some((end.root, end.count)), proof);
                Ok(())
            }
            None if self.round + 1 < Window::ROUNDS => {
                self.round += 1;
                self.window = Window::of_round(self.round);
                self.unmatched.take();
                step.findings.clear();
                step.missing_runs.clear();
                step.restarted = true;
                self.open()
            }
            None => Err(LocateError::Unproven { rounds: self.round + 1 }),
        }
    }

    fn finish(&mut self, peer: Option<(RootDigest, u64)>, proof: Proof) {
        let own = (self.own.tree.root(), self.own.len());
        let peer = peer.unwrap_or(own);
        let (source, target) = if self.role == Role::Source { (own, peer) } else { (peer, own) };
        self.phase = Phase::Done;
        self.outcome = Some(Outcome {
            source_root: source.0,
            target_root: target.0,
            source_count: source.1,
            target_count: target.1,
            proof,
            rounds: self.round + 1,
        });
    }
}

impl<V> fmt::Debug for Locator<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({:?}, round {}, {} lists sent)", self.role, self.round, self.asked.len())
    }
}

fn unexpected(message: &'static str, why: &'static str) -> ProtocolError {
    ProtocolError::Unexpected { message, why }
}

/// A list of the peer, and the own side of what it shows.
struct Segment {
    rows: Range<u64>,
    list: List,
    below: u8,
    step: u8,
}

/// Collects replies into messages of bounded size.
struct FrontierWriter {
    window: Window,
    replies: Vec<Vec<Gap>>,
    bytes: usize,
}

impl FrontierWriter {
    fn new(window: Window) -> Self {
        Self { window, replies: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, gaps: Vec<Gap>, outbox: &mut VecDeque<Message>) {
        self.bytes += 1;
        for gap in &gaps {
            self.bytes += 3;
            if let Answer::Open(list) = &gap.answer {
                self.bytes += 2 + list.items.len() * self.window.item_bytes(list.mode);
            }
        }
        self.replies.push(gaps);
        if self.bytes >= MESSAGE_BYTES {
            self.flush(outbox);
        }
    }

    fn flush(&mut self, outbox: &mut VecDeque<Message>) {
        self.bytes = 0;
        let replies = std::mem::take(&mut self.replies);
        outbox.push_back(Message::Frontier(Frontier { window: self.window, replies }));
    }

    fn finish(mut self, outbox: &mut VecDeque<Message>) {
        if !self.replies.is_empty() {
            self.flush(outbox);
        }
    }
}
