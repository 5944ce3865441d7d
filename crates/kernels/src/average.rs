//! A running average of numbers that change (exponential moving average).

use crate::{Cpu, Result, error::check, isa::vectorised};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// Moves `average` towards `values`, of as many numbers, by the share `rate` of the difference.
///
/// # Errors
/// [`Length`](crate::KernelError::Length) when the lengths differ.
pub fn step(cpu: &Cpu, rate: f32, values: &[f32], average: &mut [f32]) -> Result<()> {
    check("average::step", "average", average.len(), &[values.len()])?;
    let mut jobs: Vec<_> = average.chunks_mut(CHUNK).zip(values.chunks(CHUNK)).collect();
    cpu.chunks(&mut jobs, 1, |_, jobs| {
        for (average, values) in jobs {
            step_chunk(cpu.isa(), rate, values, average);
        }
    });
    Ok(())
}

vectorised! {
    fn step_chunk(rate: f32, values: &[f32], average: &mut [f32]) {
        for (average, value) in average.iter_mut().zip(values) {
            *average += rate * (value - *average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn agrees_with_the_reference() {
        for n in [0, 1, 37, CHUNK + 9] {
            let (start, values) = (noise(1, n), [noise(2, n), noise(3, n)]);
            let found = on_every_cpu(|cpu| {
                let mut average = start.clone();
                values.iter().for_each(|values| step(cpu, 0.25, values, &mut average).unwrap());
                average
            });
            let mut expected = wide(&start);
            for values in &values {
                for (average, value) in expected.iter_mut().zip(wide(values)) {
                    *average = 0.75 * *average + 0.25 * value;
                }
            }
            assert_close("average", &found, &expected, 2e-7);
        }
    }

    #[test]
    fn what_is_no_number_stays_where_it_is() {
        let cpu = Cpu::new(1).unwrap();
        let mut average = [1.0; 3];
        step(&cpu, 0.5, &[f32::NAN, f32::INFINITY, 3.0], &mut average).unwrap();
        assert!(average[0].is_nan() && average[1] == f32::INFINITY && average[2] == 2.0);
        assert!(step(&cpu, 0.5, &[0.0; 2], &mut average).is_err());
    }
}
