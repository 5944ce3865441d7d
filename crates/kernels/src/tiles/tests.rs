use super::*;
use crate::testing::noise;

/// What a tile holds, in the bits of `f32`.
type Tile = [u32; PLACES];

/// Sums to which products of tiles are added one after the other, and a register of zeros.
struct Chain<'a> {
    sums: &'a mut Tile,
    factors: &'a [(Tile, Tile)],
    zeros: &'a mut Tile,
}

impl TileKernel for Chain<'_> {
    fn call<U: TileUnit>(self, unit: &mut U) {
        const LINE: usize = 4 * COLUMNS;
        // SAFETY: every pointer is to a whole tile.
        unsafe {
            unit.load::<0>(self.sums.as_ptr().cast(), LINE);
            for (a, b) in self.factors {
                unit.load::<5>(a.as_ptr().cast(), LINE);
                unit.load::<7>(b.as_ptr().cast(), LINE);
                unit.multiply::<0, 5, 7>();
            }
            unit.store::<0>(self.sums.as_mut_ptr().cast(), LINE);
            unit.load::<3>(self.sums.as_ptr().cast(), LINE);
            unit.zero::<3>();
            unit.store::<3>(self.zeros.as_mut_ptr().cast(), LINE);
        }
    }
}

/// The sums after the products on `tiles`; which NaN one is does not count.
fn chain(tiles: Tiles, sums: &Tile, factors: &[(Tile, Tile)]) -> Tile {
    let (mut sums, mut zeros) = (*sums, [1; PLACES]);
    run(tiles, Chain { sums: &mut sums, factors, zeros: &mut zeros });
    assert_eq!(zeros, [0; PLACES]);
    sums.map(|bits| if f32::from_bits(bits).is_nan() { f32::NAN.to_bits() } else { bits })
}

/// The manual's operation for place `(i, j)`: `f64` holds these products exactly, and rounding their sums twice
/// changes none of these cases.
fn by_the_manual(sum: u32, a: &Tile, b: &Tile, i: usize, j: usize) -> u32 {
    let daz = |x: f64| if x.abs() < f64::from(f32::MIN_POSITIVE) { 0.0f64.copysign(x) } else { x };
    let ftz = |x: f64| daz(f64::from(x as f32));
    let term = |tile: &Tile, at: usize, odd: usize| {
        daz(f64::from(f32::from_bits(tile[at] >> (16 * odd) << 16)))
    };
    let mut halves = [0.0, 0.0];
    for p in 0..COLUMNS {
        for (odd, half) in halves.iter_mut().enumerate() {
            *half = ftz(*half + term(a, i * COLUMNS + p, odd) * term(b, p * COLUMNS + j, odd));
        }
    }
    let sum = daz(f64::from(f32::from_bits(sum)));
    let sum = ftz(sum + ftz(halves[0] + halves[1])) as f32;
    if sum.is_nan() { f32::NAN.to_bits() } else { sum.to_bits() }
}

/// Tiles of numbers around `size`, with `odd_ones` here and there.
fn tile(seed: u64, size: f32, odd_ones: &[f32]) -> Tile {
    let mut values: Vec<u32> = noise(seed, 2 * PLACES)
        .into_iter()
        .map(|x| half::bf16::from_f32(size * x).to_bits().into())
        .collect();
    for (i, x) in odd_ones.iter().enumerate() {
        values[(37 * i + 11) % (2 * PLACES)] = x.to_bits() >> 16;
    }
    std::array::from_fn(|i| values[2 * i] | values[2 * i + 1] << 16)
}

const ODD_ONES: [f32; 8] =
    [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0, -0.0, 1e-39, -1e-39, f32::MIN_POSITIVE];

/// Sums and factors of every size: those whose products overflow, and those whose products vanish.
fn cases() -> Vec<(Tile, Vec<(Tile, Tile)>)> {
    let mut cases = Vec::new();
    for (seed, size) in [1.0f32, 1e19, 1e25, 1e-19, 3e-20, 1e-38].into_iter().enumerate() {
        for odd_ones in [&[][..], &ODD_ONES[..3], &ODD_ONES[3..], &ODD_ONES] {
            let seed = 10 * seed as u64;
            let mut sums: Tile = noise(seed, PLACES)
                .into_iter()
                .map(|x| (x * size).to_bits())
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            sums[5] = 1e-40f32.to_bits();
            sums[6] = (-1e-40f32).to_bits();
            let pair = |i| (tile(seed + i, size, odd_ones), tile(seed + 5 + i, size, odd_ones));
            cases.push((sums, vec![pair(1), pair(2)]));
            cases.push(([0; PLACES], vec![pair(3)]));
        }
    }
    cases
}

#[test]
fn the_model_does_what_the_manual_says() {
    for (sums, factors) in cases() {
        let found = chain(Tiles::Software, &sums, &factors);
        let mut expected = sums;
        for (a, b) in &factors {
            let before = expected;
            for at in 0..PLACES {
                expected[at] = by_the_manual(before[at], a, b, at / COLUMNS, at % COLUMNS);
            }
        }
        for at in 0..PLACES {
            let (found, expected) = (f32::from_bits(found[at]), f32::from_bits(expected[at]));
            let same = found == expected || found.is_nan() && expected.is_nan();
            assert!(same, "{at}: {found:e} {expected:e}");
        }
    }
}

#[test]
fn even_and_odd_terms_are_summed_apart_and_then_added() {
    let bf = |low: f32, high: f32| low.to_bits() >> 16 | high.to_bits() & 0xffff_0000;
    let (mut a, mut b) = ([0; PLACES], [0; PLACES]);
    // Even: 2^24, then 1, which is lost in it. Odd: -2^24, then 3, which is rounded to 4.
    (a[0], a[1]) = (bf(16_777_216.0, -16_777_216.0), bf(1.0, -3.0));
    (b[0], b[COLUMNS]) = (bf(1.0, 1.0), bf(1.0, 1.0));
    let mut sums = [0; PLACES];
    sums[0] = 0.5f32.to_bits();
    let found = chain(Tiles::Software, &sums, &[(a, b)]);
    assert_eq!(f32::from_bits(found[0]), -3.5);
}

/// Intel's two descriptions of the instruction add in different orders: what it gives is near the model in either.
/// Where there is no unit, the model is compared with itself.
#[test]
fn the_processor_does_what_the_model_does() {
    let mut are_same = true;
    for (sums, factors) in cases() {
        let unit = chain(Tiles::Hardware, &sums, &factors);
        let model = chain(Tiles::Software, &sums, &factors);
        are_same &= unit == model;
        for at in 0..PLACES {
            let size = size(sums[at], &factors, at / COLUMNS, at % COLUMNS);
            let [unit, model] = [unit[at], model[at]].map(f32::from_bits);
            if !size.is_finite() {
                assert!(!unit.is_finite(), "{at}: {unit:e} {model:e}");
            } else if (1e-30..1e30).contains(&size) {
                let error = f64::from(unit - model).abs();
                assert!(error <= size * 1e-5, "{at}: {unit:e} {model:e}");
            }
        }
    }
    let unit = if is_usable() { "the processor's unit" } else { "the model, for want of a unit," };
    #[allow(clippy::print_stderr, reason = "a test says what it ran on")]
    let () = eprintln!("{unit} gives {} bits", if are_same { "the model's" } else { "other" });
}

/// The sum of what is added in place `(i, j)`, each without its sign.
fn size(sum: u32, factors: &[(Tile, Tile)], i: usize, j: usize) -> f64 {
    let value = |bits: u32| f64::from(f32::from_bits(bits)).abs();
    let terms = factors.iter().flat_map(|(a, b)| {
        (0..COLUMNS).flat_map(move |p| {
            let (x, y) = (a[i * COLUMNS + p], b[p * COLUMNS + j]);
            [(x << 16, y << 16), (x & 0xffff_0000, y & 0xffff_0000)]
        })
    });
    value(sum) + terms.map(|(x, y)| value(x) * value(y)).sum::<f64>()
}
