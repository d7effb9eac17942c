//! Digests, the sorted run of them, and the tree over the run: what one side knows of its table after one scan.
//!
//! ```text
//! (key, row digest), any order ──RunBuilder──► DigestRun (key order, memory or disk) + Tree (16-byte nodes, 32-byte root)
//! ```
//! A leaf or node ends at a key whose hash says so, so that equal content gives an equal tree on any machine, and one
//! changed row touches one leaf and its path.

mod batch;
mod boundary;
mod cells;
mod coding;
mod column;
mod digest;
mod error;
mod leaf;
mod many;
mod merge;
mod node;
mod opener;
mod overlay;
mod pieces;
mod rows;
mod run;
mod segment;
mod sort;
mod strand;
mod strays;
mod tree;
mod view;

#[cfg(test)]
mod strand_tests;
#[cfg(test)]
mod tests;

pub use batch::EntryBatch;
pub use boundary::{BoundaryKey, LEAF_BITS, boundary_level};
pub use cells::{Cells, Shape, element, shown};
pub use digest::{NodeDigest, RootDigest, RowDigest, SessionKey};
pub use error::RunError;
pub use opener::{Opener, finer_cells};
pub use overlay::{OverlayRoot, overlay_root};
pub use rows::RowHasher;
pub use run::{DigestRun, RunBuilder, RunOptions};
pub use strand::{Strand, StrandBuilder};
pub use tree::{Tree, TreeBuilder, TreeKey};
pub use view::{EachEntry, RunView};

pub(crate) use coding::{common_prefix, get_varint, put_varint};
