use half::bf16;

use super::*;
use crate::{reference, testing::*};

/// One problem: `n` rows of width `d` against `vocab` tokens.
struct Problem {
    hidden: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    /// Derivatives by the entropies; none where they do not count.
    of_entropy: Vec<f32>,
    vocab: usize,
    d: usize,
    scale: f32,
    excluded: Option<u32>,
}

impl Problem {
    fn new(n: usize, vocab: usize, d: usize, scale: f32) -> Self {
        Self {
            hidden: noise(1, n * d).iter().map(|x| 3.0 * x).collect(),
            weight: noise(2, vocab * d),
            targets: indices(3, n, vocab),
            weights: noise(4, n),
            of_entropy: Vec::new(),
            excluded: None,
            vocab,
            d,
            scale,
        }
    }

    fn head(&self) -> Head<'_> {
        let (vocab, d, scale, excluded) = (self.vocab, self.d, self.scale, self.excluded);
        Head { weight: WeightView::F32(&self.weight), vocab, d, scale, excluded }
    }

    /// The same with a token left out, and the entropies of all rows but every third counting.
    fn with_entropy(self, excluded: Option<u32>) -> Self {
        let (n, vocab) = (self.targets.len(), self.vocab as u32);
        let mut of_entropy = noise(5, n);
        of_entropy.iter_mut().step_by(3).for_each(|e| *e = 0.0);
        let mut targets = self.targets;
        targets.iter_mut().filter(|t| excluded == Some(**t)).for_each(|t| *t = (*t + 1) % vocab);
        Self { of_entropy, excluded, targets, ..self }
    }

    /// What the reference gives.
    fn reference(&self) -> [Vec<f64>; 4] {
        let (hidden, weight) = (wide(&self.hidden), wide(&self.weight));
        let (d, scale, excluded) = (self.d, self.scale.into(), self.excluded);
        let head = reference::cross_entropy::Head { weight: &weight, d, scale, excluded };
        let mut of_entropy = wide(&self.of_entropy);
        of_entropy.resize(self.targets.len(), 0.0);
        let (nll, dhidden, dweight) = reference::cross_entropy::forward_backward(
            &hidden,
            &head,
            &self.targets,
            &wide(&self.weights),
            &of_entropy,
        );
        [nll, dhidden, dweight, reference::cross_entropy::entropies(&hidden, &head)]
    }

    /// `nll`, `dhidden` and `dweight`, which starts at 0.
    fn run(&self, cpu: &Cpu) -> [Vec<f32>; 3] {
        let mut nll = vec![9.0; self.targets.len()];
        let mut dhidden = vec![9.0; self.hidden.len()];
        let mut dweight = vec![0.0; self.weight.len()];
        let weights = Weights { nll: &self.weights, entropy: &self.of_entropy };
        let (targets, hidden, head) = (&self.targets, &self.hidden, self.head());
        forward_backward(
            cpu,
            hidden,
            &head,
            targets,
            weights,
            &mut nll,
            Gradients { dhidden: &mut dhidden, dweight: &mut dweight },
        )
        .unwrap();
        let mut alone = vec![9.0; nll.len()];
        forward(cpu, hidden, &head, targets, &mut alone).unwrap();
        assert_eq!(
            alone.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            nll.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
        [nll, dhidden, dweight]
    }
}

#[test]
fn agrees_with_the_reference() {
    // One chunk and row block; several row blocks; several chunks.
    for (n, vocab, d, scale) in
        [(0, 5, 3, 1.0), (1, 1, 1, 1.0), (7, 37, 5, 0.25), (517, 19, 3, 1.0), (3, 40_001, 2, -1.5)]
    {
        let p = Problem::new(n, vocab, d, scale);
        let expected = p.reference();
        for cpu in cpus() {
            let [nll, dhidden, dweight] = p.run(&cpu);
            assert_close("nll", &nll, &expected[0], 1e-6);
            assert_close("dhidden", &dhidden, &expected[1], 5e-6);
            assert_close("dweight", &dweight, &expected[2], 5e-6);
        }
    }
}

#[test]
fn entropies_and_tokens_left_out_agree_with_the_reference() {
    for (n, vocab, d, scale) in
        [(1, 2, 1, 1.0), (7, 37, 5, 0.25), (517, 19, 3, 1.0), (3, 40_001, 2, -1.5)]
    {
        // The last token is a chunk of its own in none of these, and the first chunk's end in some.
        for excluded in [None, Some(0), Some(vocab as u32 - 1)] {
            let p = Problem::new(n, vocab, d, scale).with_entropy(excluded);
            let expected = p.reference();
            for cpu in cpus() {
                let [nll, dhidden, dweight] = p.run(&cpu);
                assert_close("nll", &nll, &expected[0], 2e-6);
                assert_close("dhidden", &dhidden, &expected[1], 5e-6);
                assert_close("dweight", &dweight, &expected[2], 5e-6);
                let mut told = vec![Confidence::default(); n];
                let mut again = vec![0.0; n];
                let (hidden, targets) = (&p.hidden, &p.targets);
                confidences(&cpu, hidden, &p.head(), targets, &mut again, &mut told).unwrap();
                assert_eq!(nll, again);
                let entropies: Vec<f32> = told.iter().map(|told| told.entropy).collect();
                assert_close("entropy", &entropies, &expected[3], 2e-6);
                if let Some(token) = excluded {
                    let row = &dweight[token as usize * d..][..d];
                    assert!(row.iter().all(|g| *g == 0.0), "{row:?}");
                }
            }
        }
    }
}

#[test]
fn a_row_is_right_when_no_token_is_more_probable() {
    let cpu = Cpu::new(1).unwrap();
    let weight = WeightView::F32(&[1.0, 3.0, 2.0, 3.0]);
    let mut told = [Confidence::default(); 4];
    let mut tell = |excluded, targets: &[u32]| {
        let head = Head { weight, vocab: 4, d: 1, scale: 1.0, excluded };
        let n = targets.len();
        let mut nll = [0.0; 4];
        confidences(&cpu, &vec![1.0; n], &head, targets, &mut nll[..n], &mut told[..n]).unwrap();
        told[..n].iter().map(|told| told.is_right).collect::<Vec<_>>()
    };
    assert_eq!(tell(None, &[0, 1, 2, 3]), [false, true, false, true]);
    assert_eq!(tell(Some(1), &[0, 2, 3]), [false, false, true]);
}

#[test]
fn threads_do_not_matter() {
    let p = Problem::new(150, 33_000, 2, 1.0);
    for isa in [crate::Isa::Portable, crate::Isa::detect()] {
        let run = |threads| p.run(&Cpu::with_isa(isa, threads).unwrap());
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{isa}");
    }
}

#[test]
fn a_row_does_not_see_the_others() {
    for vocab in [300, 40_001] {
        let p = Problem::new(140, vocab, 3, 1.0);
        let cpu = Cpu::new(2).unwrap();
        let [all, dall, _] = p.run(&cpu);
        for row in [0, 77, 139] {
            let one = Problem {
                hidden: p.hidden[row * 3..][..3].to_vec(),
                weight: p.weight.clone(),
                targets: vec![p.targets[row]],
                weights: vec![p.weights[row]],
                of_entropy: Vec::new(),
                ..p
            };
            let [nll, dhidden, _] = one.run(&cpu);
            assert_eq!(nll[0].to_bits(), all[row].to_bits());
            assert_eq!(dhidden, dall[row * 3..][..3]);
        }
    }
}

#[test]
fn gradients_of_the_weight_are_added_and_narrow_weights_widened() {
    let mut p = Problem::new(4, 11, 6, 1.0);
    let narrow: Vec<bf16> = p.weight.iter().map(|&w| bf16::from_f32(w)).collect();
    p.weight = narrow.iter().map(|w| w.to_f32()).collect();
    let cpu = Cpu::new(1).unwrap();
    let expected = p.run(&cpu);
    let head = Head { weight: WeightView::Bf16(&narrow), ..p.head() };
    let (mut nll, mut dhidden, mut dweight) = (vec![0.0; 4], vec![0.0; 24], vec![100.0; 66]);
    forward_backward(
        &cpu,
        &p.hidden,
        &head,
        &p.targets,
        Weights { nll: &p.weights, entropy: &[] },
        &mut nll,
        Gradients { dhidden: &mut dhidden, dweight: &mut dweight },
    )
    .unwrap();
    assert_close("nll", &nll, &wide(&expected[0]), 1e-6);
    assert_close("dhidden", &dhidden, &wide(&expected[1]), 1e-6);
    let added: Vec<f64> = expected[2].iter().map(|&g| f64::from(g) + 100.0).collect();
    assert_close("dweight", &dweight, &added, 1e-6);
}

#[test]
fn nan_stays_in_its_row() {
    let mut p = Problem::new(3, 40_001, 2, 1.0);
    p.hidden[2] = f32::NAN;
    let [nll, dhidden, dweight] = p.run(&Cpu::new(1).unwrap());
    let nan = |x: &[f32]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
    assert_eq!(nan(&nll), [false, true, false]);
    assert_eq!(nan(&dhidden), [false, false, true, true, false, false]);
    assert!(dweight.iter().all(|g| g.is_nan()));
}

#[test]
fn certainty_costs_nothing() {
    let cpu = Cpu::new(1).unwrap();
    let head =
        Head { weight: WeightView::F32(&[1.0, -1.0]), vocab: 2, d: 1, scale: 1.0, excluded: None };
    let mut nll = [0.0; 2];
    forward(&cpu, &[300.0, 300.0], &head, &[0, 1], &mut nll).unwrap();
    assert_eq!(nll, [0.0, 600.0]);
}

#[test]
fn without_width_every_token_is_as_likely() {
    let cpu = Cpu::new(1).unwrap();
    let head = Head { weight: WeightView::F32(&[]), vocab: 3, d: 0, scale: 1.0, excluded: None };
    let mut nll = [0.0; 2];
    let none = Gradients { dhidden: &mut [], dweight: &mut [] };
    forward_backward(
        &cpu,
        &[],
        &head,
        &[0, 2],
        Weights { nll: &[1.0; 2], entropy: &[] },
        &mut nll,
        none,
    )
    .unwrap();
    assert_eq!(nll, [3f32.ln(); 2]);
}

#[test]
fn refuses_other_shapes_and_targets() {
    let cpu = Cpu::new(1).unwrap();
    let weight = [0.5; 6];
    let head =
        Head { weight: WeightView::F32(&weight), vocab: 3, d: 2, scale: 1.0, excluded: None };
    let short = Head { vocab: 4, ..head };
    assert!(forward(&cpu, &[0.0; 4], &head, &[0, 2], &mut [0.0; 2]).is_ok());
    assert!(forward(&cpu, &[0.0; 4], &short, &[0, 2], &mut [0.0; 2]).is_err());
    assert!(forward(&cpu, &[0.0; 3], &head, &[0, 2], &mut [0.0; 2]).is_err());
    assert!(forward(&cpu, &[0.0; 4], &head, &[0, 2], &mut [0.0; 1]).is_err());
    let error = forward(&cpu, &[0.0; 4], &head, &[0, 3], &mut [0.0; 2]).unwrap_err().to_string();
    assert!(error.contains("row 1 has target 3"), "{error}");
    let run = |weights: usize, dhidden: usize, dweight: usize| {
        let (mut dhidden, mut dweight) = (vec![0.0; dhidden], vec![0.0; dweight]);
        let (weights, mut nll) = (vec![1.0; weights], [0.0; 2]);
        let (x, t) = ([0.0; 4], [0, 1]);
        let gradients = Gradients { dhidden: &mut dhidden, dweight: &mut dweight };
        let weights = Weights { nll: &weights, entropy: &[] };
        forward_backward(&cpu, &x, &head, &t, weights, &mut nll, gradients)
    };
    let without = |excluded| Head { excluded: Some(excluded), ..head };
    assert!(forward(&cpu, &[0.0; 4], &without(1), &[0, 2], &mut [0.0; 2]).is_ok());
    assert!(forward(&cpu, &[0.0; 4], &without(2), &[0, 2], &mut [0.0; 2]).is_err());
    assert!(forward(&cpu, &[0.0; 4], &without(3), &[0, 2], &mut [0.0; 2]).is_err());
    assert!(run(2, 4, 6).is_ok());
    assert!(run(1, 4, 6).is_err());
    assert!(run(2, 2, 6).is_err());
    assert!(run(2, 4, 5).is_err());
}
