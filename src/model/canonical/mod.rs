//! The canonical encoding: one value, one byte string. Its bytes are hashed, and the same bytes travel as the row.
//!
//! ```text
//! key  := component*                      memcomparable: byte order is key order
//! component := 01 payload                 where the payload's type delimits itself
//!            | 01 escaped(payload)        text, bytes, bits, json, arrays, dynamic: 00 becomes 00 FF, then 00 00
//!            | 02 class escaped(bytes)    irregular: a value that does not fit the comparison type
//! row  := cell*                           the columns that are not in the key
//! cell := 00                              NULL
//!       | varint(1 + 2 * len) payload
//!       | varint(2 + 2 * len) class bytes irregular
//! ```
//! Integers are minimal big-endian behind a byte that tells sign and length; decimals are base 10000 behind class and
//! weight; both order as they compare. Times are big-endian counts with the sign bit flipped.
//!
//! Invariant: no serde and no engine here. A change of any byte is a new [`ENCODING_VERSION`].

mod read;
mod write;
mod write_as;

pub use read::{
    DecodeError, decode_cell, decode_key, decode_key_into, decode_row, split_cells, split_cells_into,
};
pub use write::{CellWriter, NullKey, RowBuffer};

/// Agents of different versions refuse each other.
pub const ENCODING_VERSION: u32 = 2;

pub(crate) const REGULAR: u8 = 1;
pub(crate) const IRREGULAR: u8 = 2;

#[cfg(test)]
mod tests;
