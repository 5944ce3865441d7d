//! *How many* tokens a step unmasks (`num_transfer_tokens` of the reference): as many as the transfer
//! [`Schedule`] says, or by a [`TransferRule`] more where the model is sure.
//!
//! Every rule unmasks at least the schedule's share, and at least one: `steps` bounds the forward
//! passes whatever the rule, and with one step for each token the rule alone decides. What the rules
//! compare is the confidence that [`Remasking`](super::Remasking) ranks by.

mod choose;
mod memory;
mod schedule;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(super) use memory::{Memory, Past};
pub use schedule::Schedule;

use super::{Range, SamplerError};

/// A transfer rule: how many tokens a step unmasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferRule {
    /// As many as the [`Schedule`] says, as the reference does.
    #[default]
    Schedule,
    /// All of at least this confidence (Fast-dLLM, arXiv 2505.22618).
    Threshold(f64),
    /// The most confident n as long as (n + 1)(1 − c_n) ≤ f, c_n being the least of their confidences
    /// (Fast-dLLM, Sec. 3.3).
    Factor(f64),
    /// The most confident as long as the sum of their entropies but the largest, a bound on what they
    /// tell about each other, is at most γ nats (EB-Sampler, arXiv 2505.24857).
    Entropy(f64),
    /// All whose distribution has come to rest (KLASS, arXiv 2511.05664).
    Klass(Klass),
    /// All that are confident, and those near them that are nearly so (LocalLeap, arXiv 2510.07081).
    Leap(Leap),
    /// A threshold on confidences that tokens which kept leading have raised (CreditDecoding, arXiv
    /// 2510.06133).
    Credit(Credit),
}

/// When a distribution has come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Klass {
    /// Least confidence.
    pub confidence: f64,
    /// KL(p_t ‖ p_{t−1}) must be below this, in nats.
    pub divergence: f64,
    /// For so many steps in a row.
    pub steps: usize,
}

impl Default for Klass {
    fn default() -> Self {
        Self { confidence: 0.9, divergence: 0.01, steps: 2 }
    }
}

/// Who may leap along.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leap {
    /// Least confidence of an anchor.
    pub anchor: f64,
    /// Least confidence of its neighbours.
    pub neighbour: f64,
    /// How many positions away from an anchor a neighbour is at most.
    pub reach: usize,
}

impl Default for Leap {
    fn default() -> Self {
        Self { anchor: 0.9, neighbour: 0.75, reach: 4 }
    }
}

/// How credit is earned and spent: each step a position's credits decay by β, its most probable
/// token earns pᵞ, and α ln(1 + credit) is added to the logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credit {
    /// Least confidence, credits counted.
    pub confidence: f64,
    /// α.
    pub weight: f64,
    /// β.
    pub decay: f64,
    /// γ.
    pub exponent: f64,
}

impl Default for Credit {
    fn default() -> Self {
        Self { confidence: 0.9, weight: 0.7, decay: 0.8, exponent: 0.2 }
    }
}

impl TransferRule {
    /// The names on the command line, with the number that may follow them.
    pub const NAMES: [&'static str; 7] = [
        "schedule",
        "threshold=0.9",
        "factor=1",
        "entropy=0.1",
        "klass=0.9",
        "leap=0.9",
        "credit=0.9",
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Threshold(_) => "threshold",
            Self::Factor(_) => "factor",
            Self::Entropy(_) => "entropy",
            Self::Klass(_) => "klass",
            Self::Leap(_) => "leap",
            Self::Credit(_) => "credit",
        }
    }

    /// The number that follows its name on the command line.
    fn number(self) -> Option<f64> {
        match self {
            Self::Schedule => None,
            Self::Threshold(x) | Self::Factor(x) | Self::Entropy(x) => Some(x),
            Self::Klass(klass) => Some(klass.confidence),
            Self::Leap(leap) => Some(leap.anchor),
            Self::Credit(credit) => Some(credit.confidence),
        }
    }

    /// Whether it compares confidences, which must then mean something.
    pub(super) fn compares(self) -> bool {
        !matches!(self, Self::Schedule | Self::Entropy(_))
    }

    /// Checks that its numbers are possible.
    pub(super) fn check(self) -> Result<(), SamplerError> {
        match self {
            Self::Schedule => Ok(()),
            Self::Threshold(x) => Range::check(&[("transfer threshold", x)]),
            Self::Factor(x) => Range::check(&[("transfer factor", x)]),
            Self::Entropy(x) => Range::check(&[("transfer entropy", x)]),
            Self::Klass(Klass { confidence, divergence, steps }) => Range::check(&[
                ("klass confidence", confidence),
                ("klass divergence", divergence),
                ("klass steps", steps as f64),
            ]),
            Self::Leap(Leap { anchor, neighbour, reach }) => Range::check(&[
                ("leap anchor", anchor),
                ("leap neighbour", neighbour),
                ("leap reach", reach as f64),
            ]),
            Self::Credit(Credit { confidence, weight, decay, exponent }) => Range::check(&[
                ("credit confidence", confidence),
                ("credit weight", weight),
                ("credit decay", decay),
                ("credit exponent", exponent),
            ]),
        }
    }
}

impl TransferRule {
    /// Its other numbers, by the names of their fields.
    fn others(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut tagged)) => match tagged.remove(self.name()) {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            },
            _ => Map::new(),
        }
    }

    /// Itself with other numbers, given as `steps=3,divergence=0.1`; `None` if it has none of that
    /// name.
    fn with(self, others: &str) -> Option<Self> {
        let mut fields = self.others();
        for pair in others.split(',') {
            let (name, number) = pair.split_once('=')?;
            *fields.get_mut(name)? = serde_json::from_str(number).ok()?;
        }
        let tagged = Map::from_iter([(self.name().to_owned(), Value::Object(fields))]);
        serde_json::from_value(Value::Object(tagged)).ok()
    }
}

impl fmt::Display for TransferRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.number() else { return f.write_str(self.name()) };
        let short = format!("{}={number}", self.name());
        f.write_str(&short)?;
        let usual = short.parse().map(Self::others).unwrap_or_default();
        for (name, number) in self.others() {
            if usual.get(&name) != Some(&number) {
                write!(f, ",{name}={number}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for TransferRule {
    type Err = SamplerError;

    /// A name, a name and its number, or with other numbers behind: `klass`, `klass=0.8`,
    /// `klass=0.8,steps=3`.
    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let unknown = || SamplerError::Unknown {
            what: "transfer rule",
            found: s.to_owned(),
            known: Self::NAMES.join(", "),
        };
        let lower = s.trim().to_ascii_lowercase();
        let s = lower.as_str();
        let (rule, others) = match s.split_once(',') {
            None => (s, None),
            Some((rule, others)) => (rule, Some(others)),
        };
        let (name, number) = match rule.split_once('=') {
            None => (rule, None),
            Some((name, number)) => (name, Some(number.parse::<f64>().map_err(|_| unknown())?)),
        };
        let rule = match (name, number) {
            ("schedule", None) => Self::Schedule,
            ("threshold", x) => Self::Threshold(x.unwrap_or(0.9)),
            ("factor", x) => Self::Factor(x.unwrap_or(1.0)),
            ("entropy", x) => Self::Entropy(x.unwrap_or(0.1)),
            ("klass", None) => Self::Klass(Klass::default()),
            ("klass", Some(confidence)) => Self::Klass(Klass { confidence, ..Klass::default() }),
            ("leap", None) => Self::Leap(Leap::default()),
            ("leap", Some(anchor)) => {
                let neighbour = Leap::default().neighbour.min(anchor);
                Self::Leap(Leap { anchor, neighbour, ..Leap::default() })
            }
            ("credit", None) => Self::Credit(Credit::default()),
            ("credit", Some(confidence)) => {
                Self::Credit(Credit { confidence, ..Credit::default() })
            }
            _ => return Err(unknown()),
        };
        let rule = match others {
            None => rule,
            Some(others) => rule.with(others).ok_or_else(unknown)?,
        };
        rule.check()?;
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_json_round_trip() {
        for name in TransferRule::NAMES {
            let rule: TransferRule = name.parse().unwrap();
            assert_eq!(rule.to_string(), name);
            assert_eq!(name.split('=').next().unwrap().parse(), Ok(rule));
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<TransferRule>(&json).unwrap(), rule);
        }
        for name in ["leap=0.5", "leap=0.8,reach=2", "klass=0.5,divergence=0.25,steps=3"] {
            assert_eq!(name.parse::<TransferRule>().unwrap().to_string(), name);
        }
        let steps = TransferRule::Klass(Klass { steps: 3, ..Klass::default() });
        assert_eq!("klass,steps=3".parse(), Ok(steps));
        let short: TransferRule = serde_json::from_str(r#"{"klass": {"steps": 3}}"#).unwrap();
        assert_eq!(short, TransferRule::Klass(Klass { steps: 3, ..Klass::default() }));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_rules() {
        for bad in [
            "",
            "all",
            "threshold=",
            "threshold=high",
            "schedule=1",
            "factor=1=2",
            "factor=1,x=2",
            "klass=0.9,",
            "klass=0.9,steps",
            "klass=0.9,steps=-1",
            "leap,reach=half",
            "klass,pace=2",
        ] {
            let error = bad.parse::<TransferRule>().unwrap_err();
            assert!(error.hint().unwrap().contains("entropy=0.1"), "{bad}: {error}");
        }
        for (bad, number) in [
            ("threshold=-1", "transfer threshold"),
            ("threshold=2", "transfer threshold"),
            ("factor=0", "transfer factor"),
            ("factor=inf", "transfer factor"),
            ("entropy=NaN", "transfer entropy"),
            ("klass=1.5", "klass confidence"),
            ("klass,steps=0", "klass steps"),
            ("leap,reach=0", "leap reach"),
            ("credit,weight=-1", "credit weight"),
        ] {
            let Err(SamplerError::OutOfRange { name, .. }) = bad.parse::<TransferRule>() else {
                panic!("{bad}");
            };
            assert_eq!(name, number);
        }
    }
}
