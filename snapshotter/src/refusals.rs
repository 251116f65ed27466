//! The last layers that were not served, and why.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::limits::MAX_REFUSALS;

/// A layer that containerd was left to unpack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The layer's chain ID, as the client sent it.
    pub chain_id: String,
    /// The image it belongs to, where the client said so.
    pub reference: Option<String>,
    /// Why it is not served.
    pub reason: String,
    /// When that was found out, in seconds after 1970.
    pub at_unix_s: u64,
}

#[derive(Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    pub(crate) fn add(&self, refusal: Refusal) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == MAX_REFUSALS {
            last.pop_front();
        }
        last.push_back(refusal);
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
