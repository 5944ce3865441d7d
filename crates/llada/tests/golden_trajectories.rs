//! All trajectories of the official sampler and of Fast-dLLM, replayed with the real model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/fast_dllm.rs"]
mod fast_dllm;
#[path = "common/trajectories.rs"]
mod trajectories;

use llada::{config::Objective, model::MaskPredictor};

fn load(name: &str, objective: Objective) -> MaskPredictor {
    common::predictor(&common::golden::model(name), objective, 1)
}

#[test]
fn official_trajectories() {
    trajectories::replay_all(|name| load(name, Objective::Diffusion));
}

#[test]
fn trajectories_of_llada_moe() {
    trajectories::replay_moe(|name| load(name, Objective::Diffusion));
}

#[test]
fn fast_dllm_trajectories() {
    fast_dllm::replay_all(|name| load(name, Objective::Diffusion));
}

#[test]
fn greedy_continuations_of_the_autoregressive_baseline() {
    let replayed = trajectories::replay_greedy(|name| load(name, Objective::Autoregressive));
    assert!(replayed == 2 || !common::golden::is_own_set(), "{replayed} continuations");
}
