//! A part of the rows, so that many processes share a work.

use std::str::FromStr;

/// One of several parts of some rows, which follow on each other and are as equal as can be: what the
/// parts give, one after the other, is what all rows give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 1.
    number: usize,
    /// How many there are.
    of: usize,
}

impl FromStr for Shard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(number, of)| {
            Some(Self { number: number.parse().ok()?, of: of.parse().ok()? })
        });
        let is_one = |shard: &Self| (1..=shard.of).contains(&shard.number);
        numbers.filter(is_one).ok_or("expected I/N, such as 2/8 for the second of eight parts")
    }
}

impl From<Shard> for llada::data::Part {
    fn from(Shard { number, of }: Shard) -> Self {
        Self { number, of }
    }
}

impl Shard {
    /// The rows of this part.
    pub fn take<T>(self, mut rows: Vec<T>) -> Vec<T> {
        let end = |number: usize| (rows.len() as u128 * number as u128 / self.of as u128) as usize;
        let (start, end) = (end(self.number - 1), end(self.number));
        rows.truncate(end);
        rows.split_off(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_all_rows_in_order() {
        for of in 1..9 {
            let part = |number: usize| format!("{number}/{of}").parse::<Shard>().unwrap();
            let parts = (1..=of).map(|number| part(number).take((0..7).collect::<Vec<_>>()));
            assert_eq!(parts.flatten().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
        }
        for wrong in ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
