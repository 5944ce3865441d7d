//! The numbers of all parameters of a model.

use llada_kernels::WeightView;

use super::{Arena, Tensor};

/// The numbers of all parameters of a model, in the order of its [`Layout`](super::Layout): each
/// where it lies, in a mapped file or copied; or all in one allocation, and so trainable.
#[derive(Debug, Clone)]
pub struct Tensors {
    /// All of them, where they lie in one allocation.
    flat: Option<Arena>,
    /// Otherwise each.
    apart: Vec<Tensor>,
}

impl Tensors {
    /// Parameters.
    pub fn len(&self) -> usize {
        self.flat.as_ref().map_or(self.apart.len(), Arena::len)
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of a parameter, in their storage type.
    ///
    /// # Panics
    /// If there is no such parameter, as do slices.
    pub fn get(&self, parameter: usize) -> WeightView<'_> {
        match &self.flat {
            Some(arena) => WeightView::F32(&arena[parameter]),
            None => self.apart[parameter].view(),
        }
    }

    /// Whether the numbers of a parameter are read where they lie in a mapped file.
    pub fn is_mapped(&self, parameter: usize) -> bool {
        matches!(self.apart.get(parameter), Some(Tensor::Mapped { .. }))
    }

    /// Those of every parameter.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = WeightView<'_>> {
        (0..self.len()).map(|parameter| self.get(parameter))
    }

    /// Puts `values` in the place of the numbers of a parameter, as many as there were.
    ///
    /// # Panics
    /// If there is no such parameter, or they are not as many.
    pub fn set(&mut self, parameter: usize, values: Vec<f32>) {
        match &mut self.flat {
            Some(arena) => arena[parameter].copy_from_slice(&values),
            None => self.apart[parameter] = Tensor::Owned(values),
        }
    }

    /// All numbers, copied first into one allocation as `f32` where they are not in one.
    pub fn flatten(&mut self) -> &mut Arena {
        let apart = std::mem::take(&mut self.apart);
        self.flat.get_or_insert_with(|| {
            let mut arena = Arena::zeros(apart.iter().map(|tensor| tensor.view().len()));
            // The memory of a copy is given back before the next is made.
            for (parameter, tensor) in apart.into_iter().enumerate() {
                tensor.view().widen(&mut arena[parameter]);
            }
            arena
        })
    }

    /// Copies the numbers of a parameter out of its mapped file, as `f32`.
    pub(super) fn own(&mut self, parameter: usize) {
        if let Some(tensor @ Tensor::Mapped { .. }) = self.apart.get_mut(parameter) {
            *tensor = Tensor::Owned(tensor.to_f32());
        }
    }
}

impl From<Arena> for Tensors {
    fn from(arena: Arena) -> Self {
        Self { flat: Some(arena), apart: Vec::new() }
    }
}

impl FromIterator<Tensor> for Tensors {
    fn from_iter<T: IntoIterator<Item = Tensor>>(tensors: T) -> Self {
        Self { flat: None, apart: tensors.into_iter().collect() }
    }
}
