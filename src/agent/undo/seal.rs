//! Encrypts and decrypts the records of one journal.

use std::path::Path;

use chacha20poly1305::aead::{Aead, AeadInPlace, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::super::error::{AgentError, FailureKind};
use super::key::UndoKey;

pub(super) const MAGIC: &[u8] = b"trueup undo 4\n";
pub(super) const LENGTH: usize = 4;
pub(super) const NONCE: usize = 24;
/// Before what is encrypted.
pub(super) const FRONT: usize = LENGTH + NONCE;
/// Kinds of records.
pub(super) const HEAD: u8 = 0;
pub(super) const BATCH: u8 = 1;
pub(super) const OUTCOMES: u8 = 2;
pub(super) const END: u8 = 3;
/// Flags of a row: what is told of it.
pub(super) const BEFORE: u8 = 1;
pub(super) const AFTER: u8 = 2;
pub(super) const OWN_BEFORE: u8 = 4;
/// Flag of an outcome: what the row held then.
pub(super) const LEFT: u8 = 0x10;

pub(super) struct Sealer {
    cipher: XChaCha20Poly1305,
    name: Vec<u8>,
    next: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(secret)")
    }
}

impl Sealer {
    pub(super) fn new(key: &UndoKey, path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        Self { cipher: XChaCha20Poly1305::new((&key.0).into()), name, next: 0 }
    }

    fn bound_to(&self, number: u64) -> Vec<u8> {
        [self.name.as_slice(), &[0], &number.to_be_bytes()].concat()
    }

    /// Encrypts a record where it lies, behind room for its front.
    pub(super) fn seal(&mut self, mut record: Vec<u8>) -> Result<Vec<u8>, AgentError> {
        let too_large =
            || AgentError::new(FailureKind::Resource, "a batch is too large for the undo journal");
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            AgentError::new(FailureKind::Resource, format!("the system has no randomness: {error}"))
        })?;
        let bound_to = self.bound_to(self.next);
        let (front, plain) = record.split_at_mut_checked(FRONT).ok_or_else(too_large)?;
        let tag = self
            .cipher
            .encrypt_in_place_detached(&XNonce::from(nonce), &bound_to, plain)
            .map_err(|_| too_large())?;
        let length = u32::try_from(plain.len() + tag.len()).map_err(|_| too_large())?;
        let (to_length, to_nonce) = front.split_at_mut(LENGTH);
        to_length.copy_from_slice(&length.to_be_bytes());
        to_nonce.copy_from_slice(&nonce);
        record.extend_from_slice(&tag);
        self.next += 1;
        Ok(record)
    }

    pub(super) fn open(&self, number: u64, nonce: &[u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
        let payload = Payload { msg: sealed, aad: &self.bound_to(number) };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()
    }
}
