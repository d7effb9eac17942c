//! What the two sides say to each other.

use crate::merkle::{EntryBatch, NodeDigest, Opener, RootDigest, RowDigest, Shape};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Target to source, first word of a round.
    Open(Open),
    /// Source to target: the roots are the same.
    Equal,
    /// Either way: answers to lists, with new lists.
    Frontier(Frontier),
    /// Source to target: which of yours are the few that so many of mine face? Everything is located.
    Name,
    /// Target to source: its entries without a match, in key order; none where they are too many to name.
    Named(EntryBatch),
    /// Source to target: entries of the source without a match, in key order.
    Findings(EntryBatch),
    /// Source to target, in key order with the findings.
    MissingRun(MissingRun),
    /// Source to target: no more findings.
    End(End),
    /// Target to source: no further round.
    Closed,
    /// Source to target: so many steps from the opener's cells to finer ones.
    Finer(u8),
    /// Source to target: another stage of the sketch, of so many cells.
    More(u32),
    /// Target to source: the cells asked for, in order.
    SketchCells(SketchCells),
    /// Source to target: so much differs that all entries are findings; yours are all without a match, too.
    Listing,
    /// Source to target: elements of the sketch that are not the source's own. The list of the opener is settled by them.
    Strangers(Vec<u64>),
}

impl Message {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Equal => "equal",
            Self::Frontier(_) => "frontier",
            Self::Name => "name",
            Self::Named(_) => "named",
            Self::Findings(_) => "findings",
            Self::MissingRun(_) => "missing run",
            Self::End(_) => "end",
            Self::Closed => "closed",
            Self::Finer(_) => "finer",
            Self::More(_) => "more",
            Self::SketchCells(_) => "sketch cells",
            Self::Listing => "listing",
            Self::Strangers(_) => "strangers",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Counted from 0.
    pub round: u8,
    pub root: RootDigest,
    pub count: u64,
    /// Long stretches without any target row may be announced by their bounds.
    pub bulk: bool,
    pub window: Window,
    /// The whole table.
    pub list: List,
    /// The source may ask for symbols of a sketch.
    pub sketches: bool,
    /// Where few rows are thought to differ.
    pub sketch: Option<Sketch>,
}

/// The first stage of a sketch, over all entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    pub sums: Vec<u64>,
    /// Of the first cells: how many entries fell into each, as its lowest byte; of the small opener its lowest two, for each
    /// of its cells stands for many.
    pub counts: Vec<u8>,
}

impl Sketch {
    /// `rows` of the smaller table.
    pub(super) fn of(opener: &Opener, shape: Shape, rows: u64) -> Self {
        let bytes = Self::count_bytes(shape, rows);
        let counts = opener.counts(shape);
        Self {
            sums: opener.cells(shape).sums().to_vec(),
            counts: counts.iter().flat_map(|count| count.to_le_bytes().into_iter().take(bytes)).collect(),
        }
    }

    /// Bytes of one count: of large tables two, or what differs could be more than the counts can tell.
    pub(super) fn count_bytes(shape: Shape, rows: u64) -> usize {
        if shape == Shape::SMALL_OPENER || rows >= 1 << 20 { 2 } else { 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SketchCells {
    pub from: u32,
    pub sums: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    pub window: Window,
    /// One for each list of the receiver, in the order in which those were sent.
    pub replies: Vec<Vec<Gap>>,
}

/// A stretch of a list whose items found no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Matched items since the last gap.
    pub skip: u32,
    pub len: u32,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The answering side has no rows there.
    Absent,
    /// The answering side has other rows there: entries were compared, or so many nodes without anything in common
    /// that it is no use to look closer.
    Facing,
    /// Nodes were compared: what the answering side has there.
    Open(List),
}

/// What one side has in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    pub mode: Mode,
    pub items: Vec<u64>,
}

/// How a segment is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Short digest and tag of each node of a level.
    Nodes(u8),
    /// Short digest of each entry; the answer is final.
    Entries,
    /// Short digest and tag of nodes of a level at both ends of a long stretch: so many from its begin, so many to its end.
    Edges { level: u8, left: u32, right: u32 },
    /// Nothing is listed: there is much here and little on the other side, which shall list its own.
    Yours,
}

/// Which bytes of the 16 of a digest travel: a later round looks at others, and at more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub offset: u8,
    pub node: u8,
    pub entry: u8,
}

impl Window {
    pub const ROUNDS: u8 = 3;

    pub(super) fn of_round(round: u8) -> Self {
        match round {
            0 => Self { offset: 0, node: 4, entry: 4 },
            1 => Self { offset: 4, node: 6, entry: 6 },
            _ => Self { offset: 8, node: 7, entry: 8 },
        }
    }

    pub(super) fn is_valid(self) -> bool {
        let within =
            |width: u8, most: u8| (1..=most).contains(&width) && self.offset.saturating_add(width) <= 16;
        within(self.node, 7) && within(self.entry, 8)
    }

    /// Fewer bytes of the same part, for a few short lists: hardly anything can collide there.
    pub(super) fn narrow(self) -> Self {
        Self { node: self.node.min(3), entry: self.entry.min(3), ..self }
    }

    /// More bytes of entries: a few of them face very many.
    pub(super) fn wide(self) -> Self {
        Self { entry: self.entry.saturating_add(2).min(8), ..self }
    }

    /// The same of a side that lists its few entries because the other has very many.
    pub(super) fn of_few(self) -> Self {
        Self { node: self.narrow().node, entry: self.wide().entry, ..self }
    }

    fn short(self, digest: &[u8; 16], width: u8) -> u64 {
        let bytes = digest.iter().skip(usize::from(self.offset)).take(usize::from(width));
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    pub(super) fn of_entry(self, digest: RowDigest) -> u64 {
        self.short(&digest.0, self.entry)
    }

    /// The tag, which names the border that the node ends at, in the lowest byte.
    pub(super) fn of_node(self, digest: NodeDigest, tag: u8) -> u64 {
        self.short(&digest.0, self.node) << 8 | u64::from(tag)
    }

    /// Bytes of one item of a list.
    pub(super) fn item_bytes(self, mode: Mode) -> usize {
        match mode {
            Mode::Nodes(_) | Mode::Edges { .. } => usize::from(self.node) + 1,
            Mode::Entries => usize::from(self.entry),
            Mode::Yours => 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct MissingRun {
    /// Counted from 0 within a round.
    pub run_id: u32,
    pub count: u64,
    pub first: crate::model::Key,
    pub last: crate::model::Key,
}

impl std::fmt::Debug for MissingRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MissingRun({}: {} entries)", self.run_id, self.count)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub root: RootDigest,
    pub count: u64,
}
