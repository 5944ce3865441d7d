//! What the values of a recipe must be.

use super::{Algorithm, OneOrMany, Padding, Recipe, Stage};
use crate::{Result, config::Objective, train::TrainError};

/// Most tokens of a step: a hundred times what the largest models are trained with.
const STEP: usize = 1 << 30;
/// Most sequences of a step.
const SEQUENCES: usize = 1 << 22;

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

/// Checks that a number is in a range that is far wider than what trains, and narrow enough to be
/// computed with.
fn range(x: f64, key: &str, least: f64, most: f64) -> Result<()> {
    rule((least..=most).contains(&x), key, x, &format!("from {least:?} to {most:?}"))
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
        self.check_stage()?;
        self.check_experts()?;
        if let Some(block) = &self.block {
            block.check()?;
            let (objective, expected) = (self.train.objective, "diffusion beside `[block]`");
            let found = format!("{objective:?}").to_lowercase();
            rule(objective == Objective::Diffusion, "train.objective", found, expected)?;
            let constant = self.lora.rank == 0 || block.length.as_slice().len() == 1;
            let expected = "0 where `block.length` is a schedule: adapters keep to their model's";
            rule(constant, "lora.rank", self.lora.rank, expected)?;
        }
        let (lora, model) = (&self.lora, &self.model);
        range(lora.alpha, "lora.alpha", 1e-6, 1e6)?;
        range(model.rope_theta, "model.rope_theta", 1.0, 1e15)?;
        let eps = f64::from(model.rms_norm_eps);
        rule((1e-20..=1.0).contains(&eps), "model.rms_norm_eps", eps, "from 1e-20 to 1")?;
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
        let validation = data.validation.iter().map(|paths| ("data.validation", paths));
        for (key, paths) in [("data.path", &data.path)].into_iter().chain(validation) {
            let is_stdin = paths.as_slice().iter().any(|path| path.as_os_str() == "-");
            let expected = "the path of a file or folder: a run that goes on reads it again";
            rule(!is_stdin, key, "-", expected)?;
        }
        self.check_mixture()?;
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
        let (split, autoregressive) =
            (data.split_documents, self.train.objective == Objective::Autoregressive);
        let key = "data.split_documents";
        let is_of_shards = self.stage() == Stage::Pretraining;
        rule(!split || is_of_shards, key, split, "false: only shards have documents to split")?;
        let expected = "false: no token is before a document's first to predict it from";
        rule(!split || !autoregressive, key, split, expected)?;
        let eps = self.diffusion.eps;
        rule(positive(eps) && eps < 1.0, "diffusion.eps", eps, "above 0 and below 1")
    }

    fn check_mixture(&self) -> Result<()> {
        let (data, folders) = (&self.data, self.data.path.as_slice().len());
        let many = self.sft.is_none() && folders > 1;
        let expected = "0 in a mixture: there is no first of several folders";
        rule(!many || data.unique_tokens == 0, "data.unique_tokens", data.unique_tokens, expected)?;
        let Some(weights) = data.weights.as_ref().map(OneOrMany::as_slice) else { return Ok(()) };
        let (key, shown) = ("data.weights", format!("{weights:?}"));
        let expected = "nothing where `data.path` is not several folders of shards";
        rule(many, key, &shown, expected)?;
        let expected = format!("one weight for each of the {folders} folders of `data.path`");
        rule(weights.len() == folders, key, &shown, &expected)?;
        let in_range = weights.iter().all(|w| (1e-6..=1e12).contains(w));
        rule(in_range, key, shown, "weights from 1e-6 to 1e12")
    }

    fn check_optim(&self) -> Result<()> {
        let optim = &self.optim;
        rule(positive(optim.lr), "optim.lr", optim.lr, "above 0")?;
        rule(optim.lr <= 1000.0, "optim.lr", optim.lr, "at most 1000")?;
        let below_peak = not_negative(optim.min_lr) && optim.min_lr <= optim.lr;
        rule(below_peak, "optim.min_lr", optim.min_lr, "from 0 to `optim.lr`")?;
        let decay = optim.decay_fraction;
        rule(fraction(decay), "optim.decay_fraction", decay, "from 0 to 1")?;
        // Closer to 1, a mean is 1 minus nothing in `f32`, and never moves.
        range(optim.beta1, "optim.beta1", 0.0, 0.999999)?;
        range(optim.beta2, "optim.beta2", 0.0, 0.999999)?;
        range(optim.eps, "optim.eps", 1e-30, 1.0)?;
        range(optim.ema, "optim.ema", 0.0, 0.999999)?;
        let decay = optim.weight_decay;
        // A step that takes off more than all of a weight turns its sign, and may blow it up.
        let holds = not_negative(decay) && decay * optim.lr <= 1.0;
        let expected = "at least 0, and at most 1 / `optim.lr`";
        rule(holds, "optim.weight_decay", decay, expected)?;
        rule(not_negative(optim.clip_norm), "optim.clip_norm", optim.clip_norm, "at least 0")
    }

    fn check_loop(&self) -> Result<()> {
        let (train, eval) = (&self.train, &self.eval);
        rule(train.steps > 0, "train.steps", train.steps, "at least 1")?;
        let many = 1_000_000_000_000_000;
        rule(train.steps <= many, "train.steps", train.steps, "at most a million billion")?;
        self.check_batch()?;
        let is_cut = train.micro_batch_size > 0;
        let expected = "false where `train.micro_batch_size` is 0: one micro-batch makes no tree";
        rule(is_cut || !train.tree_reduction, "train.tree_reduction", true, expected)?;
        rule(train.max_skipped > 0, "train.max_skipped", train.max_skipped, "at least 1")?;
        let expected = "0 where `eval.every` is 0: nothing is validated";
        rule(train.keep_best == 0 || eval.every > 0, "train.keep_best", train.keep_best, expected)?;
        let spike = train.spike_factor;
        rule(spike == 0.0 || spike > 1.0, "train.spike_factor", spike, "0, or above 1")?;
        rule(
            eval.every == 0 || eval.sequences > 0,
            "eval.sequences",
            eval.sequences,
            "at least 1",
        )?;
        rule(eval.every == 0 || eval.draws > 0, "eval.draws", eval.draws, "at least 1")?;
        let measures = eval.tasks.as_slice().is_empty() || eval.tasks_every() > 0;
        let expected = "above 0 where `eval.every` is 0 and there are `eval.tasks`";
        rule(measures, "eval.task_every", eval.task_every, expected)?;
        rule(eval.draws <= 1 << 16, "eval.draws", eval.draws, "at most 65536")?;
        rule(self.log.every > 0, "log.every", self.log.every, "at least 1")
    }

    /// Bounds the work of a step: one that never ends is no step.
    fn check_batch(&self) -> Result<()> {
        let (key, sequences) = ("train.batch_size", self.train.batch_size);
        rule(sequences > 0, key, sequences, "at least 1")?;
        let most = (STEP / self.data.sequence_length.max(1)).clamp(1, SEQUENCES);
        let expected = format!(
            "at most {most} sequences of `data.sequence_length`: a step has {STEP} tokens at most"
        );
        rule(sequences <= most, key, sequences, &expected)
    }

    fn check_sft(&self) -> Result<()> {
        let (data, train) = (&self.data, &self.train);
        let Some(sft) = &self.sft else {
            if self.stage() != Stage::Pretraining {
                return Ok(());
            }
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
        let has_blocks = sft.padding != Some(Padding::Block) || self.block.is_some();
        rule(has_blocks, "sft.padding", "block", "another value where there is no `[block]`")?;
        if sft.complementary_masks {
            let masked = train.objective == Objective::Diffusion;
            let expected = "false: the autoregressive objective masks nothing";
            rule(masked, "sft.complementary_masks", true, expected)?;
            let expected = "even: every sequence has its complement in the batch";
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

impl Recipe {
    /// Preferences and rewards: one of them at a time, on a model that masks.
    fn check_stage(&self) -> Result<()> {
        let sections = [
            ("sft", self.sft.is_some()),
            ("preference", self.preference.is_some()),
            ("reward", self.reward.is_some()),
        ];
        let mut present = sections.into_iter().filter(|(_, is_there)| *is_there);
        if let (Some((one, _)), Some((other, _))) = (present.next(), present.next()) {
            let expected = format!("no section beside `[{one}]`: a run has one stage");
            return rule(false, other, "a section", &expected);
        }
        if !matches!(self.stage(), Stage::Preference | Stage::Reward) {
            return Ok(());
        }
        let (data, objective) = (&self.data, self.train.objective);
        let masks = objective == Objective::Diffusion;
        let expected = "diffusion: these losses are of masked tokens";
        rule(masks, "train.objective", "autoregressive", expected)?;
        let expected = "0: nothing is cut here";
        rule(data.random_length == 0.0, "data.random_length", data.random_length, expected)?;
        rule(data.unique_tokens == 0, "data.unique_tokens", data.unique_tokens, expected)?;
        let expected =
            "no section beside `[preference]` or `[reward]`: their losses mask whole responses";
        rule(self.block.is_none(), "block", "a section", expected)?;
        let tree = self.train.tree_reduction;
        let expected = "false: steps of this stage differ in their micro-batches";
        rule(!tree, "train.tree_reduction", tree, expected)?;
        self.check_preference()?;
        self.check_reward()
    }

    fn check_preference(&self) -> Result<()> {
        let Some(preference) = &self.preference else { return Ok(()) };
        range(preference.beta, "preference.beta", 1e-6, 1e3)?;
        let draws = preference.draws;
        rule((1..=1 << 12).contains(&draws), "preference.draws", draws, "from 1 to 4096")?;
        let pairs = !preference.antithetic || draws.is_multiple_of(2);
        rule(pairs, "preference.draws", draws, "even: versions come in antithetic pairs")?;
        range(preference.sft_weight, "preference.sft_weight", 0.0, 1e3)?;
        rule(
            not_negative(preference.epochs),
            "preference.epochs",
            preference.epochs,
            "at least 0",
        )?;
        let held_out = (0.0..1.0).contains(&preference.held_out);
        rule(held_out, "preference.held_out", preference.held_out, "from 0 to below 1")
    }

    fn check_reward(&self) -> Result<()> {
        let Some(reward) = &self.reward else { return Ok(()) };
        let expected = "the name of a task that ships, or a task file";
        rule(!reward.task.is_empty(), "reward.task", "", expected)?;
        let (completions, batch) = (reward.completions, self.train.batch_size);
        let expected = "at least 2: completions of a prompt are compared with each other";
        rule(completions >= 2, "reward.completions", completions, expected)?;
        let expected = format!("a multiple of `reward.completions`, {completions}");
        rule(batch.is_multiple_of(completions), "train.batch_size", batch, &expected)?;
        let iterations = (1..=1 << 10).contains(&reward.iterations);
        rule(iterations, "reward.iterations", reward.iterations, "from 1 to 1024")?;
        let draws = reward.draws;
        rule((1..=1 << 12).contains(&draws), "reward.draws", draws, "from 1 to 4096")?;
        range(reward.beta, "reward.beta", 0.0, 1e3)?;
        range(reward.clip_low, "reward.clip_low", 0.0, 0.999)?;
        range(reward.clip_high, "reward.clip_high", 0.0, 1e3)?;
        range(reward.psi, "reward.psi", 1e-6, 1e6)?;
        range(reward.prompt_mask, "reward.prompt_mask", 0.0, 1.0)?;
        let (length, most) = (reward.gen_length, self.data.sequence_length);
        let expected = format!("from 1 to below `data.sequence_length`, {most}");
        rule((1..most).contains(&length), "reward.gen_length", length, &expected)?;
        range(reward.temperature, "reward.temperature", 1e-3, 1e2)?;
        // What clips nothing regresses on nothing.
        let moves = reward.algorithm != Algorithm::Gdsd || reward.clip_low + reward.clip_high > 0.0;
        rule(moves, "reward.clip_high", reward.clip_high, "above 0 with `gdsd`")?;
        rule(not_negative(reward.epochs), "reward.epochs", reward.epochs, "at least 0")?;
        let held_out = (0.0..1.0).contains(&reward.held_out);
        rule(held_out, "reward.held_out", reward.held_out, "from 0 to below 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_computed_with_are_refused_by_key() {
        for (key, good, bad) in [
            ("optim.lr", "5", "1e30"),
            ("optim.lr", "1e-9", "0"),
            ("optim.weight_decay", "100", "1e30"),
            ("optim.weight_decay", "0", "-1"),
            ("optim.eps", "1e-12", "1e-300"),
            ("optim.eps", "1e-3", "1e30"),
            ("optim.beta1", "0", "0.9999999999999"),
            ("optim.beta2", "0.9999", "0.9999999999999"),
            ("lora.alpha", "512", "1e30"),
            ("lora.alpha", "0.5", "1e-300"),
            ("model.rope_theta", "1e9", "1e300"),
            ("model.rope_theta", "100", "1e-300"),
            ("model.rms_norm_eps", "1e-6", "1e-30"),
            ("train.batch_size", "65536", "1e9"),
            ("data.path", "./-", "-"),
        ] {
            let least = "optim.min_lr=0";
            let read = |value: &str| Recipe::parse("", &[least, &format!("{key}={value}")]);
            assert!(read(good).is_ok(), "{key}={good}: {:?}", read(good));
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}` is `")), "{key}={bad}: {error}");
        }
        let error = Recipe::parse_sft("", &["sft.padding=block"]).unwrap_err().to_string();
        assert!(error.starts_with("`sft.padding` is `block`"), "{error}");
        assert!(Recipe::parse_sft("", &["sft.padding=block", "block.length=4"]).is_ok());
        let error = Recipe::parse_sft("", &["data.path=a", "data.validation=-"]).unwrap_err();
        assert!(error.to_string().starts_with("`data.validation` is `-`"), "{error}");
    }
}
