//! Learning the merges of byte-pair encoding (Sennrich et al. 2016).
//!
//! The trainer of `tokenizers` counts pairs in 32 bits, which a large corpus overflows, and where
//! counts tie the order of its hash maps can decide; here the same words give the same merges.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

type Pair = (u32, u32);

/// A pair seen once says nothing about other text.
const MIN_COUNT: i64 = 2;

/// Learns a vocabulary of up to `size` tokens, the alphabet included, from words with their
/// counts. Each step merges the most frequent pair, of equals that with the smallest ids. Gives
/// the tokens in the order of their ids, and the merges in the order they were made. Characters
/// outside the alphabet are passed over.
pub(super) fn learn(
    words: &BTreeMap<String, u64>,
    alphabet: &[char],
    size: usize,
) -> (Vec<String>, Vec<(String, String)>) {
    let ids: HashMap<char, u32> = alphabet.iter().copied().zip(0..).collect();
    let mut vocab: Vec<String> = alphabet.iter().map(char::to_string).collect();
    let mut known: HashMap<String, u32> = vocab.iter().cloned().zip(0..).collect();
    let mut corpus = Corpus::new(words, &ids);
    let mut merges = Vec::new();
    while vocab.len() < size
        && let Some(pair) = corpus.most_frequent()
    {
        let (left, right) = (vocab[pair.0 as usize].clone(), vocab[pair.1 as usize].clone());
        // Another pair may have given the same token before: "ab" + "c" and "a" + "bc".
        let token = *known.entry(format!("{left}{right}")).or_insert_with_key(|text| {
            vocab.push(text.clone());
            vocab.len() as u32 - 1
        });
        merges.push((left, right));
        corpus.merge(pair, token);
    }
    (vocab, merges)
}

/// Words as tokens, and where each pair of neighbours occurs.
struct Corpus {
    words: Vec<(Vec<u32>, i64)>,
    counts: HashMap<Pair, i64>,
    /// Words that have, or once had, a pair; may name one several times.
    places: HashMap<Pair, Vec<u32>>,
    /// Pairs by count. A count that has changed since is corrected when it comes to the top.
    queue: BinaryHeap<(i64, Reverse<Pair>)>,
}

impl Corpus {
    fn new(words: &BTreeMap<String, u64>, ids: &HashMap<char, u32>) -> Self {
        let words: Vec<(Vec<u32>, i64)> = words
            .iter()
            .map(|(word, &n)| {
                (word.chars().filter_map(|c| ids.get(&c).copied()).collect(), n as i64)
            })
            .collect();
        let (mut counts, mut places) = (HashMap::new(), HashMap::<Pair, Vec<u32>>::new());
        for (place, (tokens, n)) in words.iter().enumerate() {
            for pair in pairs(tokens) {
                *counts.entry(pair).or_insert(0) += n;
                places.entry(pair).or_default().push(place as u32);
            }
        }
        let queue = counts.iter().map(|(&pair, &n)| (n, Reverse(pair))).collect();
        Self { words, counts, places, queue }
    }

    /// The most frequent pair, if one is frequent enough to learn.
    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((n, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == n && n >= MIN_COUNT {
                return Some(pair);
            }
            if now < n && now >= MIN_COUNT {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Replaces `pair` by `token` in every word.
    fn merge(&mut self, pair: Pair, token: u32) {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut changed = Vec::new();
        for place in places {
            let (tokens, n) = &mut self.words[place as usize];
            for old in pairs(tokens) {
                *self.counts.entry(old).or_insert(0) -= *n;
            }
            replace(tokens, pair, token);
            for new in pairs(tokens) {
                *self.counts.entry(new).or_insert(0) += *n;
                if new.0 == token || new.1 == token {
                    self.places.entry(new).or_default().push(place);
                    changed.push(new);
                }
            }
        }
        self.counts.remove(&pair);
        changed.sort_unstable();
        changed.dedup();
        for new in changed {
            self.queue.push((self.counts.get(&new).copied().unwrap_or(0), Reverse(new)));
        }
    }
}

fn pairs(tokens: &[u32]) -> impl Iterator<Item = Pair> {
    tokens.windows(2).map(|w| (w[0], w[1]))
}

/// Replaces each `pair`, from the left, by `token`.
fn replace(tokens: &mut Vec<u32>, pair: Pair, token: u32) {
    let (mut read, mut write) = (0, 0);
    while read < tokens.len() {
        let here = tokens[read] == pair.0 && tokens.get(read + 1) == Some(&pair.1);
        tokens[write] = if here { token } else { tokens[read] };
        read += if here { 2 } else { 1 };
        write += 1;
    }
    tokens.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(words: &[(&str, u64)], size: usize) -> (Vec<String>, Vec<(String, String)>) {
        let words = words.iter().map(|&(w, n)| (w.to_owned(), n)).collect();
        learn(&words, &('a'..='z').collect::<Vec<_>>(), size)
    }

    #[test]
    fn merges_the_most_frequent_pair_first() {
        // The example of Sennrich et al., without end-of-word marks.
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
        let (vocab, merges) = learnt(&words, 26 + 5);
        let joined: Vec<String> = merges.iter().map(|(a, b)| format!("{a}{b}")).collect();
        assert_eq!(joined, ["es", "est", "lo", "low", "ew"]);
        assert_eq!(vocab[26..], joined);
    }

    #[test]
    fn repeated_letters_merge_from_the_left() {
        let (vocab, _) = learnt(&[("aaaaa", 3)], 28);
        assert_eq!(vocab[26..], ["aa", "aaa"]);
    }

    #[test]
    fn the_trainer_of_tokenizers_learns_the_same() {
        use tokenizers::{Model, Trainer, models::bpe};
        let syllables = ["ka", "to", "min", "re", "shi", "a", "lo", "un"];
        let mut words = BTreeMap::new();
        for n in 0..500usize {
            let word = [n % 8, n * n % 7, n / 11 % 8].map(|i| syllables[i]).concat();
            *words.entry(word).or_insert(0) += 1;
        }
        let mut trainer = bpe::BpeTrainer::builder()
            .show_progress(false)
            .min_frequency(2)
            .vocab_size(60)
            .initial_alphabet(('a'..='z').collect())
            .build();
        let list = words.iter().flat_map(|(w, &n)| std::iter::repeat_n(w, n as usize));
        trainer.feed(list, |word| Ok(vec![word.to_owned()])).unwrap();
        let mut model = bpe::BPE::default();
        trainer.train(&mut model).unwrap();
        let (vocab, _) = learn(&words, &('a'..='z').collect::<Vec<_>>(), 60);
        assert_eq!(vocab.len(), 60);
        let theirs: Vec<_> = (0..60).map(|id| model.id_to_token(id).unwrap()).collect();
        assert_eq!(vocab, theirs);
    }

    #[test]
    fn what_occurs_once_is_not_learnt() {
        assert_eq!(learnt(&[("abc", 1)], 1000).0.len(), 26);
        assert_eq!(learnt(&[("é", 9)], 1000).0.len(), 26);
    }
}
