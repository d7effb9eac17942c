//! One side of the conversation as a state machine.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::classify::{Classifier, Worked};
use super::descend::{Asked, Asking, FrontierWriter};
use super::edges;
use super::error::{LocateError, unexpected};
use super::frontier::{Own, Width};
use super::message::{End, List, Message, Mode, Open, Window};
use super::sketching::{Offered, Sketching};
use super::spans::{Span, Spans};
use super::step::{LocateOptions, Outcome, Progress, Proof, Role, Step};
use super::tell::Telling;
use crate::merkle::{RootDigest, RunView, Tree};

/// Frontiers and findings are cut where they reach about this size.
pub(super) const MESSAGE_BYTES: usize = 32 * 1024;
/// Findings of one step; more wait for [`Locator::resume`].
const FINDINGS_PER_STEP: usize = 4096;

pub(super) enum Phase<V> {
    Idle,
    Locating,
    /// Source: waits for cells.
    Sketching(Box<Sketching>),
    /// Source: waits for the names of the few rows that some of its entries face.
    Naming(Vec<Span>),
    /// Source: gives its findings.
    Telling(Telling),
    /// Source: waits for the target's last word.
    Told,
    /// Target: takes the source's findings.
    Hearing(Box<Classifier<V>>),
    Done,
}

/// One side of the conversation. Feed it with [`Locator::receive`], and send what [`Locator::next_outgoing`] gives
/// until it gives nothing.
pub struct Locator<V> {
    pub(super) role: Role,
    pub(super) own: Own<V>,
    pub(super) round: u8,
    pub(super) window: Window,
    pub(super) bulk: bool,
    /// Target: root and count that the source has said it has; nothing else may come of the conversation.
    theirs: Option<(RootDigest, u64)>,
    /// Target: the opener is small.
    pub(super) metered: bool,
    pub(super) phase: Phase<V>,
    pub(super) asked: VecDeque<Asked>,
    pub(super) open_rows: u64,
    pub(super) outbox: VecDeque<Message>,
    pub(super) unmatched: Spans,
    /// Target: it has named its entries in this round.
    pub(super) named: bool,
    pub(super) peer: Option<(RootDigest, u64)>,
    /// Source: the stretches announced as missing runs in this round.
    pub(super) runs: Vec<Range<u64>>,
    pub(super) outcome: Option<Outcome>,
    /// Target: what it knows of the source, and how far it has sent its sketch.
    pub(super) offered: Offered,
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
            named: false,
            peer: None,
            runs: Vec::new(),
            outcome: None,
            theirs: options.peer,
            offered: Offered::new(options.peer),
            metered: options.metered,
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
        let width = if self.faces_holes() { Width::FIRST_OF_HOLES } else { Width::FIRST };
        let asking = Asking { below: u8::MAX, step: 0, width, window: self.window, edges: false };
        let list = self.ask(0..self.own.len(), &asking)?;
        let (sketches, sketch) = self.offer()?;
        self.outbox.push_back(Message::Open(Open {
            round: self.round,
            root: self.own.tree.root(),
            count: self.own.len(),
            bulk: self.bulk,
            window: self.window,
            list,
            sketches,
            sketch,
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

    /// Messages that are made already and wait to be sent.
    pub fn queued(&self) -> usize {
        self.outbox.len()
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
            (Role::Source, Message::SketchCells(cells)) => self.receive_cells(cells)?,
            (Role::Target, Message::Finer(steps)) => self.receive_finer(steps)?,
            (Role::Target, Message::More(to)) => self.receive_more(to)?,
            (Role::Target, Message::Name) => self.receive_name()?,
            (Role::Source, Message::Named(names)) => self.receive_named(&names)?,
            (Role::Target, Message::Listing) => self.receive_listing()?,
            (Role::Target, Message::Strangers(elements)) => self.receive_strangers(elements)?,
            (Role::Target, Message::Findings(entries)) => self.hearing(name)?.take_entries(entries)?,
            (Role::Target, Message::MissingRun(run)) if self.bulk => self.hearing(name)?.take_run(run)?,
            (Role::Target, Message::End(end)) => {
                if self.theirs.is_some_and(|theirs| theirs != (end.root, end.count)) {
                    return Err(unexpected(name, "another root or count than at first").into());
                }
                self.hearing(name)?.take_end(end);
            }
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
            && self.theirs.is_none_or(|theirs| theirs == (self.own.tree.root(), self.own.len()))
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
        if matches!(open.list.mode, Mode::Yours | Mode::Edges { .. })
            || (open.count == 0) != open.list.items.is_empty()
        {
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
        if open.round > 0 && (open.sketches || open.sketch.is_some()) {
            return refused("a sketch in a later round");
        }
        if open.sketches && self.sketch(&open)? {
            return Ok(());
        }
        self.descend(&open.list)
    }

    /// Answers the list of the whole table.
    pub(super) fn descend(&mut self, list: &List) -> Result<(), LocateError> {
        self.phase = Phase::Locating;
        let items = list.items.len();
        let pieces = self.compare(0..self.own.len(), list, self.window)?;
        let open = pieces.iter().filter(|piece| piece.is_open()).count();
        let width = Width::after_open(open, items);
        let mut writer = FrontierWriter::new(self.fine(open));
        let below = match list.mode {
            Mode::Nodes(level) => level,
            _ => 0,
        };
        let edges = edges::are_worth_it(items, open);
        let asking = Asking { below, step: 1, width, window: writer.window, edges };
        let gaps = self.answer(pieces, &asking)?;
        writer.push(gaps, &mut self.outbox);
        writer.finish(&mut self.outbox);
        self.look_whether_located();
        Ok(())
    }

    /// Every open segment waits in one side's queue of sent lists, so an empty queue here, with everything received
    /// answered, means that none is open.
    pub(super) fn look_whether_located(&mut self) {
        if self.role == Role::Source && self.asked.is_empty() {
            self.located();
        }
    }

    /// Target: the source tells its findings once no list waits for a reply.
    fn hearing(&mut self, message: &'static str) -> Result<&mut Classifier<V>, LocateError> {
        if matches!(self.phase, Phase::Locating) && self.asked.is_empty() && self.outbox.is_empty() {
            self.look_up_strangers()?;
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
                self.named = false;
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
