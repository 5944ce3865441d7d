//! The keys of a `config.json`, with typed look-ups.

use serde_json::{Map, Value};

use super::{ConfigError, MAX_DIMENSION, Objective, Result, SpecialTokens, wrong};
use crate::json;

/// The keys of one `config.json`.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    /// `architectures[0]`, with which the class that `auto_map` names must agree; LLaDA-MoE shares
    /// LLaDA's `model_type`, so that key cannot decide.
    pub(super) fn class(&self) -> Result<&str> {
        fn text(value: Option<&Value>) -> Option<&str> {
            value.and_then(Value::as_str)
        }
        let listed = self.0.get("architectures").and_then(|listed| listed.get(0));
        let mapped = self.0.get("auto_map").and_then(|map| map.get("AutoModelForCausalLM"));
        let mapped = text(mapped).map(|path| path.rsplit('.').next().unwrap_or(path));
        let named = text(listed).or(mapped).or(match text(self.0.get("model_type")) {
            Some("llada") => Some("LLaDAModelLM"),
            other => other,
        });
        let named = named.unwrap_or("(none given)");
        match mapped {
            Some(mapped) if mapped != named => {
                Err(wrong("auto_map", mapped, format!("`{named}`, as `architectures` says")))
            }
            _ => Ok(named),
        }
    }

    pub(super) fn objective(&self) -> Result<Objective> {
        match self.0.get("objective") {
            None | Some(Value::Null) => Ok(Objective::Diffusion),
            Some(v) => serde_json::from_value(v.clone())
                .map_err(|_| wrong("objective", v, "`diffusion` or `autoregressive`")),
        }
    }

    pub(super) fn tokens(&self) -> Result<SpecialTokens> {
        Ok(SpecialTokens {
            mask: self.id("mask_token_id")?,
            eos: self.id("eos_token_id")?,
            eot: self.id("eot_token_id")?,
            bos: self.id("bos_token_id")?,
            pad: self.id("pad_token_id")?,
        })
    }

    pub(super) fn expect(&self, key: &'static str, expected: &Value) -> Result<()> {
        let found = self.0.get(key).ok_or(ConfigError::Missing(key))?;
        if found == expected { Ok(()) } else { Err(wrong(key, found, format!("`{expected}`"))) }
    }

    pub(super) fn expect_or_absent(&self, key: &'static str, expected: &Value) -> Result<()> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => self.expect(key, expected),
        }
    }

    pub(super) fn optional_size(&self, key: &'static str) -> Result<Option<usize>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if n <= MAX_DIMENSION => Ok(Some(n as usize)),
                _ => Err(wrong(key, v, format!("a whole number up to {MAX_DIMENSION}"))),
            },
        }
    }

    pub(super) fn size(&self, key: &'static str) -> Result<usize> {
        self.optional_size(key)?.ok_or(ConfigError::Missing(key))
    }

    pub(super) fn number(&self, key: &'static str) -> Result<f64> {
        let v = self.0.get(key).ok_or(ConfigError::Missing(key))?;
        v.as_f64().ok_or_else(|| wrong(key, v, "a number"))
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(v) => Err(wrong(key, v, "`true` or `false`")),
        }
    }

    pub(super) fn required_flag(&self, key: &'static str) -> Result<bool> {
        self.flag(key)?.ok_or(ConfigError::Missing(key))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn optional_number(&self, key: &'static str) -> Result<Option<f64>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(key).map(Some),
        }
    }

    /// A flag for each of `count` layers, written as 0 and 1 or as one number for all.
    pub(super) fn flags(&self, key: &'static str, count: usize) -> Result<Option<Vec<bool>>> {
        let refuse = |v: &Value| wrong(key, v, format!("0 or 1, or {count} of these"));
        let flag = |v: &Value| match v {
            Value::Bool(b) => Ok(*b),
            v => v.as_u64().filter(|&n| n <= 1).map(|n| n == 1).ok_or_else(|| refuse(v)),
        };
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) if list.len() != count => Err(refuse(&list.len().into())),
            Some(Value::Array(list)) => list.iter().map(flag).collect::<Result<_>>().map(Some),
            Some(v) => Ok(Some(vec![flag(v)?; count])),
        }
    }

    /// The width of a head where all of them make up the residual stream; the keys are those of the
    /// width and of the number of heads.
    pub(super) fn head_dim(&self, width: &'static str, heads: &'static str) -> Result<usize> {
        let (d_model, n_heads) = (self.size(width)?, self.size(heads)?);
        match d_model.checked_div(n_heads) {
            Some(head) if head * n_heads == d_model && head.is_multiple_of(2) => Ok(head),
            Some(_) => {
                Err(wrong(width, d_model, format!("a multiple of {n_heads} with even heads")))
            }
            None => Err(wrong(heads, n_heads, format!("1 to {MAX_DIMENSION}"))),
        }
    }

    /// How many elements of each head are rotated: the share that `partial_rotary_factor` states.
    pub(super) fn rotary_dim(&self, head_dim: usize) -> Result<usize> {
        const KEY: &str = "partial_rotary_factor";
        let factor = self.optional_number(KEY)?.unwrap_or(1.0);
        let rotated = head_dim as f64 * factor;
        let even = rotated as usize;
        if rotated.fract() != 0.0 || !even.is_multiple_of(2) || !(2..=head_dim).contains(&even) {
            let expected = format!("the even share of a head of {head_dim}");
            return Err(wrong(KEY, factor, expected));
        }
        match self.optional_size("rotary_dim")? {
            Some(other) if other != even => {
                Err(wrong("rotary_dim", other, format!("{even}, as `{KEY}` says")))
            }
            _ => Ok(even),
        }
    }

    /// A token id; of a list, as some checkpoints give for EOS, the first.
    fn id(&self, key: &'static str) -> Result<Option<u32>> {
        let found = match self.0.get(key) {
            Some(Value::Array(list)) => list.first(),
            other => other,
        };
        match found {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(wrong(key, v, "a token id")),
            },
        }
    }
}

/// Whether a value says that there is nothing of what its key is about.
pub(super) fn is_nothing(value: &Value) -> bool {
    json::is_nothing(value) || value == "default"
}
