//! Every operation as the textbook writes it: plain loops in `f64`, on one thread.
//!
//! The fast operations are judged by these, and these by finite differences. Arguments and shapes
//! are those of the fast operation of the same name; results are returned, and gradients are not
//! added to anything. Slices must have the lengths of their shapes; shorter ones panic.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod embedding;
pub mod grad_norm;
pub mod linear;
pub mod rms_norm;
pub mod rope;
pub mod statistics;
pub mod swiglu;
