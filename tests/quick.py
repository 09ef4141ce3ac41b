"""What ``make test-quick`` leaves out of the folders that it runs: less than a minute is left.

The rest is run by ``make test``. A name here is the end of a file's or a test's name.
"""

# what takes long: whole commands, hundreds of models, TorchScript, derivatives by finite
# differences, searches for counterexamples, the oracle against numerical optimisation, every
# build of the kernels
SLOW = (
    "analysis/test_search.py",
    "decoding/test_certificate.py",
    "decoding/test_exact.py",
    "functional/test_entmax_alpha_tensor.py",
    "functional/test_gradients.py",
    "functional/test_loss_gradients.py",
    "functional/test_properties.py",
    "functional/test_reference.py",
    "functional/test_scripting.py",
    "kernels/test_native.py",
    "kernels/test_switching.py",
    "test_100_000_classes",
    "test_16_bit_errs_by_its_own_rounding_only",
    "test_a_broken_row_is_nan_and_stays_alone",
    "test_a_million_classes",
    "test_a_million_near_uniform_classes",
    "test_equals_the_plain_recomputation",
    "test_float64_equals_the_oracle",
    "test_gradcheck",
    "test_many_rows_are_solved_like_few",
    "test_only_some_inputs_need_gradients",
    "test_script",
    "test_script_probs",
    "test_the_scores_of_all_rows_never_exist",
    "test_twenty_steps_lower_the_loss",
)
LONG_ROWS = "10007"  # a length, in the parameters of a test


def is_slow(nodeid: str) -> bool:
    """Whether a test, as ``folder/file.py::test[parameters]``, is left out."""
    path, _, test = nodeid.partition("::")
    name, _, parameters = test.partition("[")
    return path.endswith(SLOW) or name in SLOW or LONG_ROWS in parameters
