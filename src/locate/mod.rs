//! The locate protocol: two state machines that find the differing rows, fed messages and giving messages.
//!
//! Where a node ends depends on keys alone, so equal digests mean the same node on both sides. Each side sends, for a
//! stretch of the table that is still in question (a *segment*), short digests of its own nodes at a level of its
//! choice, or of its entries. The receiver aligns them with its own, in order: what lies between matches differs. It
//! answers for each such gap with a finer list of its own, so that every message goes one step down, until entries are
//! compared; then each side knows the positions of its own entries that the other does not have.
//!
//! ```text
//! target                                                      source
//!   Open      root, count, ~12 nodes of the whole table    ──►   same root: Equal, and both are done
//!   Frontier  ◄── for each gap in what was sent: where it is, and my nodes (8 to 24 of each, more where many differ)
//!   Frontier      the same, one step down                  ──►
//!   Frontier  ◄── few rows left in a gap: a digest of each entry
//!   Frontier      which of those entries I have not        ──►
//!   Findings  ◄── key and full digest of each of my entries that had no match, in key order, in chunks
//!   MissingRun ◄─ (only with `bulk`) a long stretch that faces no target row: only its bounds and its count
//!   End       ◄── my root and count
//!   Closed        the target's run with the findings laid over it has that root: proved ──►
//!                 or Open again, with another part of the digests, if short digests had collided
//! ```
//! Where the source has a long stretch in which the target has a few rows of its own, it asks for them before its findings (`Name`,
//! `Named`), so that the stretch is told by its bounds between them.
//! The target classifies by key, so that a wrong alignment (tags and short digests are only hints) costs bytes and
//! never an answer. Replies come in the order of the lists they answer; a list is never named by number. Messages are
//! cut at about 32 KiB, so that both directions can be busy at once.
//!
//! How a segment is compared is its [`Mode`], chosen by the sender per segment.
//!
//! Scattered rows are found by a sketch instead, which costs bytes for the differences alone. Where the target knows that
//! the roots differ and the counts hardly do, its opener holds the first cells of one:
//! ```text
//!   Open      root, count, ~12 nodes, 900 cells (60 of a   ──►   few rows differ: what both sides lack is known
//!             metered link)
//!   Finer     ◄── (more differ, and not side by side, up to some 2,400 entries) the cells that were folded into the opener's
//!   More      ◄── (or: many differ) so many cells more, by an estimate
//!   SketchCells                                            ──►   (if they do not suffice: more of them, twice; then the Frontier
//!                                                                that answers the opener's nodes)
//!   Listing   ◄── (or: a quarter of the rows or more differ) all of mine are findings, and follow
//!   Strangers ◄── what is not mine, for the target to look up in its own run
//!   Findings  ◄── and on as above
//! ```
//! A hole (the source has many rows more, and findings may be bounds) is found in two round trips, at some kilobytes:
//! ```text
//!   Open      root, count, ~512 nodes                      ──►
//!   Frontier  ◄── where you have one node and I have many: the fine nodes of the first and the last of mine
//!   Frontier      the rows of my one node that joins both  ──►
//!   MissingRun ◄─ and on as above
//! ```

mod align;
mod classify;
mod codec;
mod descend;
mod edges;
mod error;
mod facing;
mod frontier;
mod locator;
mod message;
mod sketch;
mod sketching;
mod spans;
mod step;
mod tell;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod duet;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod sketch_tests;
#[cfg(test)]
mod sketching_tests;
#[cfg(test)]
mod tests;

pub use classify::{Finding, FindingKind};
pub use error::{LocateError, ProtocolError};
pub use locator::Locator;
pub use message::{
    Answer, End, Frontier, Gap, List, Message, MissingRun, Mode, Open, Sketch, SketchCells, Window,
};
pub use step::{LocateOptions, Outcome, Progress, Proof, Role, Step};
