//! The types that GGUF gives to values and tensors.

use llada_kernels::{BlockFormat, DType};

/// How the numbers of a tensor are stored: GGML numbers its types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// GGML's number.
    pub id: u32,
    /// GGML's name.
    pub name: &'static str,
    /// Elements of a block; the width of a tensor is a multiple of it.
    pub block: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

/// Every type that a file can hold today, those included that are not read here, so that an error
/// can name them. The numbers that are left out were given up.
const TYPES: &[(u32, &str, usize, usize)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
];

impl TensorType {
    /// The type with GGML's number `id`, `None` where there is none.
    pub fn new(id: u32) -> Option<Self> {
        let &(id, name, block, bytes) = TYPES.iter().find(|t| t.0 == id)?;
        Some(Self { id, name, block, bytes })
    }

    /// The type of a storage that the models here can have.
    pub fn of(dtype: DType) -> Self {
        let name = dtype_name(dtype);
        let &(id, name, block, bytes) =
            TYPES.iter().find(|t| t.1 == name).unwrap_or(&(0, "F32", 1, 4));
        Self { id, name, block, bytes }
    }

    /// The storage type that it is here, `None` where it is not read.
    pub fn dtype(self) -> Option<DType> {
        let blocks = BlockFormat::ALL.map(DType::Blocks);
        FLOATS.into_iter().chain(blocks).find(|&dtype| dtype_name(dtype) == self.name)
    }

    /// Bytes of a row of `width` elements; `None` where that is no whole number of blocks, or more
    /// than can be counted.
    pub fn row_bytes(self, width: usize) -> Option<usize> {
        width.is_multiple_of(self.block).then(|| (width / self.block).checked_mul(self.bytes))?
    }
}

/// The storage types of one number each.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::Blocks(format) => format.name(),
    }
}

/// The types of metadata: number, name, and bytes where each value has as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    /// In the order of the format's numbers.
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn new(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    pub(super) fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for texts and arrays, whose lengths differ.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_number_and_one_name() {
        for (i, a) in TYPES.iter().enumerate() {
            assert!(TYPES[..i].iter().all(|b| a.0 != b.0 && a.1 != b.1), "{a:?}");
            assert_eq!(TensorType::new(a.0).unwrap().name, a.1);
        }
        assert_eq!(TensorType::new(4), None);
        for dtype in FLOATS.into_iter().chain(BlockFormat::ALL.map(DType::Blocks)) {
            let kind = TensorType::of(dtype);
            assert_eq!((kind.dtype(), kind.row_bytes(512)), (Some(dtype), dtype.bytes(512)));
        }
        for (id, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((kind.id() as usize, Kind::new(kind.id())), (id, Some(kind)));
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        let q4_k = TensorType::new(12).unwrap();
        assert_eq!(q4_k.row_bytes(512), Some(288));
        assert_eq!(q4_k.row_bytes(128), None);
        assert_eq!(TensorType::new(15).unwrap().row_bytes(usize::MAX - 255), None);
        assert_eq!(TensorType::of(DType::F32).row_bytes(usize::MAX), None);
        assert_eq!(TensorType::of(DType::Bf16).row_bytes(3), Some(6));
    }
}
