"""Small language models that label relation instances."""

import logging

# bitsandbytes warns on AVX512-BF16 processors, when it is imported, that it misses a kernel for weights that
# stay in 4 bits: nobody has to know. Here, since any module of this package may be the first to import it, by
# way of transformers' `Trainer` for instance.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)
