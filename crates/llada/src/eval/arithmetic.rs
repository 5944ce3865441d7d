//! Arithmetic expressions, computed exactly: + − × ÷ and brackets over whole numbers.

use std::iter::Peekable;

/// Deepest nesting of brackets and signs.
const MAX_DEPTH: usize = 100;

/// Whether `text` is an expression that uses each of `numbers` exactly once and has `value`. An
/// equals sign and what follows it are left out; `\times`, `\cdot`, `\div`, `×` and `÷` are read as
/// the operators that they mean.
pub(super) fn solves(text: &str, numbers: &[i128], value: i128) -> bool {
    computed(text, numbers) == Some(Fraction { over: value, under: 1 })
}

/// Whether `text` is an expression that uses each of `numbers` exactly once, whatever its value.
pub(super) fn uses(text: &str, numbers: &[i128]) -> bool {
    computed(text, numbers).is_some()
}

/// The value of an expression that uses each of `numbers` exactly once.
fn computed(text: &str, numbers: &[i128]) -> Option<Fraction> {
    let text = text.split('=').next().unwrap_or_default();
    let text = [(r"\times", "*"), (r"\cdot", "*"), (r"\div", "/"), ("×", "*"), ("÷", "/")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let mut parser = Parser { input: text.chars().peekable(), used: Vec::new(), depth: 0 };
    let found = parser.sum().filter(|_| parser.next().is_none())?;
    let sorted = |list: &[i128]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    (sorted(&parser.used) == sorted(numbers)).then_some(found)
}

/// The whole numbers in a text.
pub(super) fn numbers(text: &str) -> Option<Vec<i128>> {
    let digits = text.split(|c: char| !c.is_ascii_digit() && c != '-');
    digits.filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect()
}

/// A fraction in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    over: i128,
    under: i128,
}

impl Fraction {
    /// `None` for a division by zero, and beyond 128 bits.
    fn new(over: i128, under: i128) -> Option<Self> {
        let (mut a, mut b) = (over.checked_abs()?, under.checked_abs()?);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = a.checked_mul(under.signum())?;
        Some(Self { over: over.checked_div(divisor)?, under: under.checked_div(divisor)? })
            .filter(|f| f.under > 0)
    }

    fn plus(self, other: Self) -> Option<Self> {
        let left = self.over.checked_mul(other.under)?;
        let right = other.over.checked_mul(self.under)?;
        Self::new(left.checked_add(right)?, self.under.checked_mul(other.under)?)
    }

    fn times(self, other: Self) -> Option<Self> {
        Self::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?)
    }

    fn negative(self) -> Option<Self> {
        Self::new(self.over.checked_neg()?, self.under)
    }

    fn inverse(self) -> Option<Self> {
        Self::new(self.under, self.over)
    }
}

struct Parser<I: Iterator<Item = char>> {
    input: Peekable<I>,
    used: Vec<i128>,
    depth: usize,
}

impl<I: Iterator<Item = char>> Parser<I> {
    /// The next character that is no space, left in place.
    fn next(&mut self) -> Option<char> {
        while self.input.next_if(|c| c.is_whitespace()).is_some() {}
        self.input.peek().copied()
    }

    fn sum(&mut self) -> Option<Fraction> {
        let mut value = self.product()?;
        while let Some(sign) = self.next().filter(|c| "+-".contains(*c)) {
            self.input.next();
            let term = self.product()?;
            value = value.plus(if sign == '-' { term.negative()? } else { term })?;
        }
        Some(value)
    }

    fn product(&mut self) -> Option<Fraction> {
        let mut value = self.factor()?;
        while let Some(sign) = self.next().filter(|c| "*/".contains(*c)) {
            self.input.next();
            let factor = self.factor()?;
            value = value.times(if sign == '/' { factor.inverse()? } else { factor })?;
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<Fraction> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = match self.next()? {
            '(' => {
                self.input.next();
                let value = self.sum()?;
                self.next().filter(|c| *c == ')')?;
                self.input.next();
                value
            }
            '-' => {
                self.input.next();
                self.factor()?.negative()?
            }
            c if c.is_ascii_digit() => {
                let mut number: i128 = 0;
                while let Some(digit) = self.input.next_if(char::is_ascii_digit) {
                    number = number.checked_mul(10)?.checked_add(digit.to_digit(10)?.into())?;
                }
                self.used.push(number);
                Fraction { over: number, under: 1 }
            }
            _ => return None,
        };
        self.depth -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expressions_must_use_each_number_once_and_have_the_value() {
        let solved = |text| solves(text, &[30, 100, 93], 23);
        assert!(solved("93 - (100 - 30)"));
        assert!(solved("93-100+30 = 23"));
        assert!(solved("-(100 - 93) + 30"));
        for wrong in [
            "93 - 100 - 30",
            "23",
            "93 - 70",
            "30 - (100 - 93) + 0",
            "93 - 100 + 30 + 30 - 30",
            "93 - 100 + 30)",
            "93 - 100 + + 30",
            "",
            "(",
            "93 - 100 + 30 # x",
        ] {
            assert!(!solved(wrong), "{wrong}");
        }
    }

    #[test]
    fn divisions_are_exact() {
        assert!(solves("6 / (1 - 3 / 4)", &[1, 3, 4, 6], 24));
        assert!(solves(r"8 \div 3 \times 3", &[3, 3, 8], 8));
        assert!(!solves("7 / 2", &[7, 2], 3));
        assert!(!solves("1 / (2 - 2)", &[1, 2, 2], 0));
        let huge = "9".repeat(38);
        assert!(!solves(&format!("{huge} * {huge}"), &[], 0));
        assert!(!solves(&"(".repeat(10_000), &[], 0));
        assert!(!solves(&"-".repeat(10_000), &[], 0));
    }

    #[test]
    fn numbers_of_a_text() {
        assert_eq!(numbers("30,100, 93"), Some(vec![30, 100, 93]));
        assert_eq!(numbers("[1, -2]"), Some(vec![1, -2]));
        assert_eq!(numbers(&"9".repeat(60)), None);
    }

    proptest! {
        #[test]
        fn any_text_is_judged(text in "[0-9+*/() =-]{0,40}") {
            solves(&text, &[1, 2], 3);
        }

        #[test]
        fn sums_and_products_agree_with_integers(a in 0i128..99, b in 0i128..99, c in 0i128..99) {
            let (sum, product) = (format!("{a} + {b} * {c}"), format!("({a} - {b}) * {c}"));
            prop_assert!(solves(&sum, &[a, b, c], a + b * c));
            prop_assert!(solves(&product, &[a, b, c], (a - b) * c));
        }
    }
}
