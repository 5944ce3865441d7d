//! What the values of a recipe must be.

use super::{OneOrMany, Recipe};
use crate::{Result, config::Objective, train::TrainError};

fn rule(holds: bool, key: &str, found: impl ToString, expected: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    let (key, found, expected) = (key.into(), found.to_string(), expected.into());
    Err(TrainError::Value { key, found, expected }.into())
}

fn fraction(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

fn positive(x: f64) -> bool {
    x > 0.0 && x.is_finite()
}

fn not_negative(x: f64) -> bool {
    x >= 0.0 && x.is_finite()
}

impl Recipe {
    /// Fails at the first value that is out of its range, or that would have no effect.
    pub(super) fn check(&self) -> Result<()> {
        self.check_data()?;
        self.check_optim()?;
        self.check_loop()?;
        self.check_sft()?;
        self.check_experts()?;
        let lora = &self.lora;
        rule(positive(lora.alpha), "lora.alpha", lora.alpha, "above 0")?;
        let has_start = lora.rank == 0 || self.model.init_from.is_some();
        rule(has_start, "lora.rank", lora.rank, "0 where no `model.init_from` gives the weights")
    }

    fn check_experts(&self) -> Result<()> {
        let (model, balance) = (&self.model, self.train.balance);
        rule(not_negative(balance) && balance <= 1e3, "train.balance", balance, "from 0 to 1000")?;
        if model.experts == 0 {
            let expected = "nothing where `model.experts` is 0";
            let width = model.expert_hidden_size;
            return rule(width.is_none(), "model.expert_hidden_size", width.unwrap_or(0), expected);
        }
        let expected = "false: models with experts have none";
        for (key, is_on) in [
            ("model.qkv_bias", model.qkv_bias),
            ("model.scale_logits", model.scale_logits),
            ("model.input_emb_norm", model.input_emb_norm),
        ] {
            rule(!is_on, key, is_on, expected)?;
        }
        Ok(())
    }

    fn check_data(&self) -> Result<()> {
        let data = &self.data;
        let length = data.sequence_length;
        rule(length > 0, "data.sequence_length", length, "at least 1")?;
        rule(length <= 1 << 24, "data.sequence_length", length, "at most 16777216")?;
        let predicts = length > 1 || self.train.objective == Objective::Diffusion;
        rule(predicts, "data.sequence_length", length, "at least 2 to predict a next token")?;
        rule(
            fraction(data.random_length),
            "data.random_length",
            data.random_length,
            "from 0 to 1",
        )?;
        let eps = self.diffusion.eps;
        rule(positive(eps) && eps < 1.0, "diffusion.eps", eps, "above 0 and below 1")
    }

    fn check_optim(&self) -> Result<()> {
        let optim = &self.optim;
        rule(positive(optim.lr), "optim.lr", optim.lr, "above 0")?;
        let below_peak = not_negative(optim.min_lr) && optim.min_lr <= optim.lr;
        rule(below_peak, "optim.min_lr", optim.min_lr, "from 0 to `optim.lr`")?;
        let decay = optim.decay_fraction;
        rule(fraction(decay), "optim.decay_fraction", decay, "from 0 to 1")?;
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        rule(below_one(optim.beta1), "optim.beta1", optim.beta1, "from 0 to below 1")?;
        rule(below_one(optim.beta2), "optim.beta2", optim.beta2, "from 0 to below 1")?;
        rule(positive(optim.eps), "optim.eps", optim.eps, "above 0")?;
        let decay = optim.weight_decay;
        rule(not_negative(decay), "optim.weight_decay", decay, "at least 0")?;
        rule(not_negative(optim.clip_norm), "optim.clip_norm", optim.clip_norm, "at least 0")
    }

    fn check_loop(&self) -> Result<()> {
        let (train, eval) = (&self.train, &self.eval);
        rule(train.steps > 0, "train.steps", train.steps, "at least 1")?;
        let many = 1_000_000_000_000_000;
        rule(train.steps <= many, "train.steps", train.steps, "at most a million billion")?;
        rule(train.batch_size > 0, "train.batch_size", train.batch_size, "at least 1")?;
        rule(train.max_skipped > 0, "train.max_skipped", train.max_skipped, "at least 1")?;
        let spike = train.spike_factor;
        rule(spike == 0.0 || spike > 1.0, "train.spike_factor", spike, "0, or above 1")?;
        rule(eval.every == 0 || eval.rows > 0, "eval.rows", eval.rows, "at least 1")?;
        rule(eval.every == 0 || eval.draws > 0, "eval.draws", eval.draws, "at least 1")?;
        rule(eval.draws <= 1 << 16, "eval.draws", eval.draws, "at most 65536")?;
        rule(self.log.every > 0, "log.every", self.log.every, "at least 1")
    }

    fn check_sft(&self) -> Result<()> {
        let (data, train) = (&self.data, &self.train);
        let Some(sft) = &self.sft else {
            let paths = data.validation.as_ref().map_or(&[][..], OneOrMany::as_slice);
            let shown = paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
            let expected = "nothing: shards have a validation split of their own";
            return rule(data.validation.is_none(), "data.validation", shown.join(", "), expected);
        };
        let no_cut = data.random_length == 0.0;
        let expected = "0: conversations are not cut";
        rule(no_cut, "data.random_length", data.random_length, expected)?;
        rule(data.unique_tokens == 0, "data.unique_tokens", data.unique_tokens, expected)?;
        rule(not_negative(sft.epochs), "sft.epochs", sft.epochs, "at least 0")?;
        let held_out = (0.0..1.0).contains(&sft.held_out);
        rule(held_out, "sft.held_out", sft.held_out, "from 0 to below 1")?;
        if sft.complementary_masks {
            let masked = train.objective == Objective::Diffusion;
            let expected = "false: the autoregressive objective masks nothing";
            rule(masked, "sft.complementary_masks", true, expected)?;
            let expected = "even: every row has its complement in the batch";
            rule(
                train.batch_size.is_multiple_of(2),
                "train.batch_size",
                train.batch_size,
                expected,
            )?;
        }
        Ok(())
    }
}
