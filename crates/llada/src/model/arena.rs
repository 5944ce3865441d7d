//! The numbers of several parameters in one allocation.

use std::{
    ops::{Index, IndexMut, Range},
    slice,
};

/// The numbers of several parameters, one after the other: weights that are trained, their
/// gradients, or the state of an optimiser. A sum over processes, a share of an optimiser, clipping
/// and a checkpoint are slices of it. A parameter goes by its number, as in the
/// [`Layout`](super::Layout) that has its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arena {
    values: Vec<f32>,
    /// Where each parameter ends.
    ends: Vec<usize>,
}

impl Arena {
    /// Zeros, for parameters of so many numbers each.
    pub fn zeros(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut len = 0;
        let ends: Vec<usize> = lengths
            .into_iter()
            .map(|length| {
                len += length;
                len
            })
            .collect();
        Self { values: vec![0.0; len], ends }
    }

    /// Zeros for the parameters of another.
    pub fn like(other: &Self) -> Self {
        Self { values: vec![0.0; other.values.len()], ends: other.ends.clone() }
    }

    /// Parameters.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The numbers of all parameters.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Where among [all numbers](Self::values) those of a parameter are.
    ///
    /// # Panics
    /// If there is no such parameter, as do slices.
    pub fn range(&self, parameter: usize) -> Range<usize> {
        let start = parameter.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[parameter]
    }

    /// The numbers of each parameter.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.values, start: 0, ends: self.ends.iter() }
    }

    /// Adds a parameter at the end.
    pub fn push(&mut self, values: impl IntoIterator<Item = f32>) {
        self.values.extend(values);
        self.ends.push(self.values.len());
    }
}

impl Index<usize> for Arena {
    type Output = [f32];

    fn index(&self, parameter: usize) -> &[f32] {
        &self.values[self.range(parameter)]
    }
}

impl IndexMut<usize> for Arena {
    fn index_mut(&mut self, parameter: usize) -> &mut [f32] {
        let range = self.range(parameter);
        &mut self.values[range]
    }
}

impl<'a> IntoIterator for &'a Arena {
    type Item = &'a [f32];
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The parameters of an [`Arena`], one after the other.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [f32],
    start: usize,
    ends: slice::Iter<'a, usize>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [f32];

    fn next(&mut self) -> Option<&'a [f32]> {
        let end = *self.ends.next()?;
        let (parameter, rest) = self.rest.split_at(end - self.start);
        (self.rest, self.start) = (rest, end);
        Some(parameter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lie_one_after_the_other() {
        let mut arena = Arena::zeros([2, 0, 3]);
        arena[0].fill(1.0);
        arena[2].copy_from_slice(&[2.0, 3.0, 4.0]);
        assert_eq!(arena.values(), [1.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!((arena.len(), arena.range(1), arena.range(2)), (3, 2..2, 2..5));
        let each: Vec<&[f32]> = arena.iter().collect();
        assert_eq!(each, [&[1.0, 1.0][..], &[], &[2.0, 3.0, 4.0]]);
        assert_eq!(arena.iter().len(), 3);
        let mut pushed = Arena::default();
        each.iter().for_each(|parameter| pushed.push(parameter.iter().copied()));
        assert_eq!(pushed, arena);
        assert_eq!(Arena::like(&arena), Arena::zeros([2, 0, 3]));
        arena.values_mut().fill(0.0);
        assert_eq!(arena, Arena::like(&arena));
    }
}
