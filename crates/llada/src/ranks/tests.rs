use std::thread;

use super::*;
use crate::{
    Error,
    rng::{Purpose, Stream},
};

/// What each of so many ranks, as threads, makes of its collective.
fn with_ranks<T: Send>(world: usize, work: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let ranks = Threads::world(world).into_iter();
        let spawn = |rank: Threads| {
            scope.spawn(|| {
                let rank = rank;
                work(&rank)
            })
        };
        let threads: Vec<_> = ranks.map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Init, 0);
    (0..len).map(|_| stream.uniform() as f32 - 0.5).collect()
}

#[test]
fn sums_are_whole_and_the_same_on_every_rank() {
    for (world, len) in [(1, 5), (2, 0), (2, 9), (3, 1), (3, 1000), (5, 37)] {
        let sums = with_ranks(world, |ranks| {
            let mut values = noise(ranks.rank() as u64, len);
            ranks.all_reduce(&mut values).unwrap();
            values
        });
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{world} {len}");
        let all: Vec<Vec<f32>> = (0..world).map(|rank| noise(rank as u64, len)).collect();
        for (i, sum) in sums[0].iter().enumerate() {
            let exact: f64 = all.iter().map(|values| f64::from(values[i])).sum();
            assert!((f64::from(*sum) - exact).abs() < 1e-6, "{world} {len}");
        }
    }
}

#[test]
fn every_rank_gets_what_the_others_have() {
    let gathered = with_ranks(3, |ranks| {
        let rank = ranks.rank();
        let bytes = ranks.gather_bytes(&vec![rank as u8; rank]).unwrap();
        let mut told = vec![rank as u8];
        ranks.broadcast(1, &mut told).unwrap();
        let shares = Shares::of_units([2, 1, 1, 3], 3);
        let mut values = vec![0.0; 7];
        values[shares.of(rank)].fill(rank as f32 + 1.0);
        ranks.all_gather(&mut values, &shares).unwrap();
        ranks.barrier().unwrap();
        (bytes, told, values, ranks.any(rank == 2).unwrap(), ranks.any(false).unwrap())
    });
    let bytes = vec![vec![], vec![1], vec![2, 2]];
    let values = vec![1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0];
    assert!(
        gathered
            .iter()
            .all(|found| *found == (bytes.clone(), vec![1], values.clone(), true, false))
    );
}

#[test]
fn shares_are_whole_units_and_cover_all() {
    for world in 1..6 {
        let (even, units) = (Shares::even(10, world), Shares::of_units([4, 0, 4, 4, 1], world));
        for (shares, len) in [(&even, 10), (&units, 13)] {
            let all: Vec<usize> = (0..world).flat_map(|rank| shares.of(rank)).collect();
            assert!(all.into_iter().eq(0..len));
        }
        assert!((0..world).all(|rank| [0, 4, 8, 12, 13].contains(&units.of(rank).end)));
        assert!((0..world).all(|rank| even.of(rank).len() <= 10usize.div_ceil(world)));
    }
    assert_eq!(Shares::of_units([], 2).longest(), 0);
}

#[test]
fn a_tree_has_the_same_bits_wherever_its_leaves_are() {
    for leaves in 1..12usize {
        let alone = tree_sum(1, leaves);
        let sum: f64 = (0..leaves).map(|leaf| f64::from(noise(leaf as u64, 11)[3])).sum();
        assert!((f64::from(alone[3]) - sum).abs() < 1e-5);
        for world in 2..=leaves.min(4) {
            assert_eq!(tree_sum(world, leaves), alone, "{world} {leaves}");
        }
    }
}

/// The sum of some leaves, divided among ranks.
fn tree_sum(world: usize, leaves: usize) -> Vec<f32> {
    let share = |rank: usize| Shares::even(leaves, world).of(rank);
    let nodes: Vec<Vec<Node>> = (0..world).map(|rank| cover(leaves, share(rank))).collect();
    let sums = with_ranks(world, |ranks| {
        let (mut stack, mut sums) = (Stack::new(leaves), Vec::<Vec<f32>>::new());
        for leaf in share(ranks.rank()) {
            sums.push(noise(leaf as u64, 11));
            for _ in 0..stack.push(Node::leaf(leaf)) {
                let last = sums.pop().unwrap();
                tree::add(sums.last_mut().unwrap(), &last);
            }
        }
        assert_eq!(stack.nodes(), nodes[ranks.rank()]);
        let mut values: Vec<&mut [f32]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
        let shares = Shares::even(11, world);
        ranks.reduce_scatter_tree(leaves, &nodes, &mut values, &shares).unwrap();
        ranks.all_gather(&mut sums[0], &shares).unwrap();
        sums.swap_remove(0)
    });
    assert!(sums.iter().all(|sum| *sum == sums[0]));
    sums[0].clone()
}

#[test]
fn one_rank_says_why_and_the_others_that_it_did() {
    let outcomes = with_ranks(3, |ranks| {
        let failure = || Error::from(RankError::Start("no"));
        let outcome = if ranks.rank() > 0 { Err(failure()) } else { Ok(()) };
        let agreed = ranks.agree(outcome).unwrap_err().to_string();
        assert_eq!(ranks.agree(Ok(7)).unwrap(), 7);
        assert_eq!(ranks.first(|| Ok(ranks.rank() + 5)).unwrap(), 5);
        let none = ranks.first(|| -> Result<usize> { Err(failure()) }).unwrap_err().to_string();
        assert_eq!(ranks.gather_all(&ranks.rank()).unwrap(), [0, 1, 2]);
        ranks.same("recipe", b"a").unwrap();
        let differs = ranks.same("recipe", &[ranks.rank() as u8]).unwrap_err().to_string();
        (agreed, none, differs)
    });
    let [first, second, third] = [&outcomes[0], &outcomes[1], &outcomes[2]];
    assert!(first.0.starts_with("rank 1 could not go on: MPI") && third.0 == first.0);
    assert!(second.0.starts_with("MPI could not"));
    assert!(first.1.starts_with("MPI could not") && second.1.starts_with("rank 0 could not"));
    assert!(first.2.starts_with("rank 1 was started with another recipe"), "{}", first.2);
}

#[test]
fn a_rank_that_ends_is_missed() {
    let outcomes = with_ranks(3, |ranks| match ranks.rank() {
        1 => None,
        _ => Some(ranks.all_reduce(&mut [1.0; 4]).unwrap_err()),
    });
    for error in outcomes.into_iter().flatten() {
        assert!(matches!(error, Error::Rank(RankError::Lost)), "{error}");
    }
}
