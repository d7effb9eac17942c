//! A long stretch that the other side hardly has: both ends of it are shown at once, finely, so that one answer tells what
//! lies there.
//!
//! Where the other side has one node and this side has many, the hole begins in this side's first node and ends in its last:
//! any border between them would be a border of the other side's too, were the row that makes it there.

use std::ops::Range;

use super::error::LocateError;
use super::frontier::{Compared, Own};
use super::message::{List, Mode, Window};
use crate::merkle::RunView;

/// Nodes shown of both ends together.
const SHOWN: usize = 1000;
/// So many rows between the ends are listed one by one.
const LISTED: u64 = 1400;
/// An opener of so many nodes was made for finding holes.
const WIDE_LIST: usize = 192;

/// Whether holes are to be found in one answer to a list of so many nodes, with so many stretches that differ.
pub(super) fn are_worth_it(items: usize, differing: usize) -> bool {
    items >= WIDE_LIST && differing <= 4
}

impl<V: RunView> Own<V> {
    /// The finer nodes of the first and of the last node of a stretch, as few as are told at once.
    pub(super) fn edges(
        &self,
        rows: &Range<u64>,
        below: u8,
        window: Window,
    ) -> Result<Option<List>, LocateError> {
        let nodes = self.tree.nodes(usize::from(below), rows.clone())?;
        if nodes.len() < 2 {
            return Ok(None);
        }
        let left = self.tree.span(usize::from(below), nodes.start..nodes.start + 1)?;
        let right = self.tree.span(usize::from(below), nodes.end - 1..nodes.end)?;
        for level in 0..below {
            let count = |rows: &Range<u64>| -> Result<usize, LocateError> {
                Ok(self.tree.nodes(usize::from(level), rows.clone())?.len())
            };
            let shown = (count(&left)?, count(&right)?);
            if shown.0 + shown.1 > SHOWN {
                continue;
            }
            let (Ok(lefts), Ok(rights)) = (u32::try_from(shown.0), u32::try_from(shown.1)) else { break };
            let mut items = self.list(left, Mode::Nodes(level), window)?.items;
            items.extend(self.list(right, Mode::Nodes(level), window)?.items);
            return Ok(Some(List { mode: Mode::Edges { level, left: lefts, right: rights }, items }));
        }
        Ok(None)
    }

    /// What lies between the nodes that both sides have at the ends, and how far below it is to be shown.
    pub(super) fn between(
        &self,
        rows: Range<u64>,
        list: &List,
        (level, left): (u8, u32),
        window: Window,
    ) -> Result<(Compared, u8), LocateError> {
        let nodes = self.tree.nodes(usize::from(level), rows.clone())?;
        let own = self.list(rows, Mode::Nodes(level), window)?.items;
        let (lefts, rights) = list.items.split_at(usize::try_from(left).unwrap_or(0).min(list.items.len()));
        // At least one node of each end is not common.
        let first = own.iter().zip(lefts).take_while(|(a, b)| a == b).count();
        let first = first.min(lefts.len().saturating_sub(1));
        let rest = own.get(first..).unwrap_or_default();
        let last = rest.iter().rev().zip(rights.iter().rev()).take_while(|(a, b)| a == b).count();
        let last = last.min(rights.len().saturating_sub(1));
        let rows = self.tree.span(usize::from(level), nodes.start + first..nodes.end - last)?;
        let below = if rows.end - rows.start <= LISTED { 0 } else { level };
        Ok((Compared::between(first..list.items.len() - last, rows), below))
    }

    /// The own rows behind items of a list of edges.
    pub(super) fn edge_rows(
        &self,
        rows: &Range<u64>,
        (level, left): (u8, u32),
        shown: u64,
        items: Range<u64>,
    ) -> Result<Range<u64>, LocateError> {
        let nodes = self.tree.nodes(usize::from(level), rows.clone())?;
        let node = |item: u64| {
            let place = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
            if item < u64::from(left) {
                nodes.start.saturating_add(place(item)).min(nodes.end)
            } else {
                nodes.end.saturating_sub(place(shown.saturating_sub(item))).max(nodes.start)
            }
        };
        // The end of a range stands behind its last item.
        let end = items.end.checked_sub(1).map_or(nodes.start, |last| (node(last) + 1).min(nodes.end));
        Ok(self.tree.span(usize::from(level), node(items.start).min(end)..end)?)
    }
}
