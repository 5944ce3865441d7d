//! What the blocks of one forward pass share.

use llada_kernels::{
    Cpu,
    attention::{Mask, Sequences},
    rope::Table,
};

use super::{Model, router::Balance};

/// What every block of one forward pass shares.
pub(super) struct Pass<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) model: &'a Model,
    pub(super) table: &'a Table,
    pub(super) sequences: Sequences<'a>,
    pub(super) mask: Mask,
    /// Index of each token in its sequence.
    pub(super) positions: &'a [u32],
    /// What the load-balancing loss adds to the gradients of the router's scores.
    pub(super) balance: Balance<'a>,
}
