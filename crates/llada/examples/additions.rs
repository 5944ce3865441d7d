//! Sums worked out digit by digit, as data for small experiments:
//!
//! ```text
//! 347+586=  ->  7+6=13,4+8+1=13,3+5+1=9:933
//! ```
//!
//! `additions COUNT SEED` writes COUNT rows of `{"prompt", "response"}`, `additions COUNT SEED text`
//! the same as one text with a document for each sum. The response has an answer that is right or
//! wrong, steps that depend on each other, and a length that the prompt decides: what sampling
//! settings differ in shows on it in seconds.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use llada::rng::{Purpose, Stream};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<u64>().ok());
    let (Some(count), Some(seed)) = (number(0), number(1)) else {
        eprintln!("usage: additions COUNT SEED [text]");
        return ExitCode::from(2);
    };
    let text = args.get(2).is_some_and(|a| a == "text");
    for row in 0..count {
        let mut draws = Stream::new(seed, Purpose::Shuffle, row);
        let mut operand = || {
            let digits = 2 + draws.below(3) as u32;
            10u64.pow(digits - 1) + draws.below(9 * 10u64.pow(digits - 1))
        };
        let (a, b) = (operand(), operand());
        let (prompt, response) = (format!("{a}+{b}="), worked_out(a, b));
        match text {
            true => print!("{prompt}{response}<|endoftext|>"),
            false => println!(r#"{{"prompt": "{prompt}", "response": "{response}"}}"#),
        }
    }
    ExitCode::SUCCESS
}

/// The sum of each pair of digits from the right, with what is carried, and then the result.
fn worked_out(a: u64, b: u64) -> String {
    let (mut x, mut y, mut carry, mut steps) = (a, b, 0, Vec::new());
    while x > 0 || y > 0 {
        let sum = x % 10 + y % 10 + carry;
        let carried = if carry > 0 { "+1" } else { "" };
        steps.push(format!("{}+{}{carried}={sum}", x % 10, y % 10));
        (x, y, carry) = (x / 10, y / 10, sum / 10);
    }
    format!("{}:{}", steps.join(","), a + b)
}
