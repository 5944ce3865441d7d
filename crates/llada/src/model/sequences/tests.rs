use llada_kernels::attention::Storage;

use super::*;
use crate::config::AttentionMask;

fn config() -> ModelConfig {
    let attention = AttentionMask::Causal;
    ModelConfig { attention, max_sequence_length: 64, ..ModelConfig::llada(8, 1, 2, 16, 100) }
}

/// Opens a sequence that begins so; its name, and how many of these tokens are cached already.
fn open(sequences: &mut Sequences, beginning: &[u32]) -> Opened {
    let (config, reuse) = (config(), Reuse::Exact);
    sequences.open(&config, 32, Storage::F32, reuse, beginning).unwrap()
}

/// Takes note of the tokens of a sequence, as a pass does.
fn hold(sequences: &mut Sequences, id: SequenceId, tokens: &[u32]) {
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    sequences.get_mut(id).unwrap().extend(0, tokens, &positions, None);
}

#[test]
fn open_sequences_and_closed_ones_share_their_beginnings_until_the_model_changes() {
    let mut sequences = Sequences::default();
    sequences.retain(1);
    let first = open(&mut sequences, &[1, 2, 3]);
    hold(&mut sequences, first.id, &[1, 2, 3]);
    let second = open(&mut sequences, &[1, 2, 4]);
    assert_eq!((first.cached, second.cached), (0, 2));
    sequences.distrust();
    assert_eq!(open(&mut sequences, &[1, 2, 3]).cached, 0, "one that is open");

    hold(&mut sequences, second.id, &[1, 2, 4]);
    sequences.close(second.id);
    assert_eq!(open(&mut sequences, &[1, 2, 4]).cached, 3);
    sequences.distrust();
    assert_eq!(open(&mut sequences, &[1, 2, 4]).cached, 0, "one that was closed");
}

#[test]
fn no_more_outlive_their_closing_than_are_retained() {
    let mut sequences = Sequences::default();
    for retained in [0, 1, 2] {
        sequences.retain(retained);
        for tokens in [[1, 1], [2, 2], [3, 3]] {
            let id = open(&mut sequences, &[]).id;
            hold(&mut sequences, id, &tokens);
            sequences.close(id);
        }
        assert_eq!(sequences.closed.len(), retained);
        let last = open(&mut sequences, &[3, 3]);
        assert_eq!(last.cached, if retained > 0 { 2 } else { 0 });
        sequences.close(last.id);
    }
}
