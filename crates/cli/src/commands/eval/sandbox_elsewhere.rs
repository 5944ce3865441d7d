//! Programs that a model wrote can be checked on Unix only, which limits their resources.

use anyhow::Result;
use llada::eval::{Checker, EvalError, Verdict, task::Code};

use crate::{error::Failure, term::Term};

/// Runs nothing.
#[derive(Debug)]
pub struct Sandbox;

impl Sandbox {
    /// Refuses.
    pub fn new(_: bool, _: &Term) -> Result<Self> {
        let message = "programs can be checked on Unix only, which limits their resources";
        Err(Failure::new(message, "leave out the task").into())
    }
}

impl Checker for Sandbox {
    fn check(&mut self, _: &str, _: &str, _: &Code) -> llada::Result<Verdict> {
        Err(EvalError::Checker("there is no sandbox here".into()).into())
    }
}
