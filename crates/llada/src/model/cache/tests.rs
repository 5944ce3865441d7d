use super::*;

const BLOCK: usize = 4;

fn config(attention: AttentionMask) -> ModelConfig {
    ModelConfig { attention, max_sequence_length: 64, ..ModelConfig::llada(8, 1, 2, 16, 100) }
}

fn cache(attention: AttentionMask) -> KvCache {
    KvCache::new(&config(attention), 32).unwrap()
}

fn by_blocks() -> AttentionMask {
    AttentionMask::BlockCausal { block_length: BLOCK }
}

/// Holds `tokens` from position `first` on, where they belong.
fn hold(cache: &mut KvCache, first: usize, tokens: &[u32]) {
    let positions: Vec<u32> = (first..first + tokens.len()).map(|p| p as u32).collect();
    cache.extend(first, tokens, &positions, None);
}

#[test]
fn what_attends_to_nothing_later_is_left_to_others() {
    let mut causal = cache(AttentionMask::Causal);
    hold(&mut causal, 0, &[1, 2, 3]);
    hold(&mut causal, 3, &[4, 5]);
    assert_eq!(causal.reusable(), [1, 2, 3, 4, 5]);
    assert_eq!([causal.shared(&[1, 2, 9, 4]), causal.shared(&[2]), causal.shared(&[])], [2, 0, 0]);
    causal.truncate(2);
    assert_eq!(causal.reusable(), [1, 2]);

    let mut blocks = cache(by_blocks());
    hold(&mut blocks, 0, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(blocks.reusable(), [1, 2, 3, 4]);
    // The open block has not seen what comes; fed anew it has.
    hold(&mut blocks, 6, &[7, 8]);
    assert_eq!(blocks.reusable(), [1, 2, 3, 4]);
    hold(&mut blocks, 4, &[5, 6, 7, 8]);
    assert_eq!(blocks.reusable().len(), 8);
    assert_eq!(blocks.shared(&[1, 2, 3, 4, 5, 6, 7]), 4);
    blocks.truncate(6);
    assert_eq!(blocks.reusable().len(), 4);

    let mut whole = cache(AttentionMask::Bidirectional);
    hold(&mut whole, 0, &[1, 2, 3]);
    assert!(whole.reusable().is_empty());
    let mut near = cache(AttentionMask::Bidirectional).with_reuse(Reuse::Approximate);
    hold(&mut near, 0, &[1, 2, 3]);
    assert_eq!(near.reusable(), [1, 2, 3]);
}

#[test]
fn what_follows_other_tokens_than_it_says_is_not() {
    // A beginning that is written anew takes from what followed it.
    let mut causal = cache(AttentionMask::Causal);
    hold(&mut causal, 0, &[1, 2, 3, 4]);
    hold(&mut causal, 1, &[9]);
    assert_eq!(causal.reusable(), [1, 9]);
    // After what is no longer trusted nothing is, until all is fed again.
    causal.distrust();
    hold(&mut causal, 4, &[5]);
    assert!(causal.reusable().is_empty());
    hold(&mut causal, 0, &[1, 9, 3, 4, 5]);
    assert_eq!(causal.reusable().len(), 5);
}

#[test]
fn what_has_padding_or_gaps_is_not() {
    let mut padded = cache(AttentionMask::Causal);
    padded.extend(0, &[0, 1], &[0, 1], Some(&[false, true]));
    assert!(padded.reusable().is_empty());
    hold(&mut padded, 2, &[2]);
    assert!(padded.reusable().is_empty());
    // A mask without padding is none.
    padded.extend(0, &[1, 2], &[0, 1], Some(&[true, true]));
    assert_eq!(padded.reusable(), [1, 2]);
    let mut gaps = cache(AttentionMask::Causal);
    gaps.extend(0, &[1, 2], &[0, 3], None);
    assert!(gaps.reusable().is_empty());
}

#[test]
fn a_sequence_begins_as_another_as_far_as_both_go() {
    let mut first = cache(AttentionMask::Causal);
    hold(&mut first, 0, &[1, 2, 3, 4]);
    let mut next = cache(AttentionMask::Causal);
    assert_eq!(next.begin_as(&first, 3), 3);
    assert_eq!((next.len(), next.reusable()), (3, &[1, 2, 3][..]));
    let mut small = KvCache::new(&config(AttentionMask::Causal), 2).unwrap();
    assert_eq!((small.begin_as(&first, 4), small.len()), (2, 2));
    let other = KvCache::with_storage(&config(AttentionMask::Causal), 32, Storage::Bf16);
    let mut other = other.unwrap();
    assert_eq!((other.begin_as(&first, 4), other.len()), (0, 0));
    // What one takes over it takes by its own rule.
    let mut near = cache(AttentionMask::Bidirectional).with_reuse(Reuse::Approximate);
    hold(&mut near, 0, &[1, 2]);
    assert_eq!(cache(AttentionMask::Bidirectional).begin_as(&near, 2), 0);
    let mut exact = cache(by_blocks());
    hold(&mut exact, 0, &[1, 2, 3, 4]);
    assert_eq!(cache(by_blocks()).begin_as(&exact, 3), 0);
}
