"""What ``make test-quick`` leaves out of the folders that it runs: less than a minute is left.

The rest is run by ``make test``. A name here is the end of a file's or a test's name.
"""

import re

# what takes long: whole commands and processes, hundreds of models, TorchScript, derivatives by
# finite differences, searches for counterexamples, the oracle against numerical optimisation,
# every build of the kernels
SLOW = (
    "analysis/test_commands.py",
    "analysis/test_explorer.py",
    "analysis/test_report.py",
    "analysis/test_distributions.py",
    "analysis/test_search.py",
    "compat/test_hostile.py",
    "compat/test_old_torch.py",
    "compat/test_scripting.py",
    "compat/test_torn.py",
    "criterions/test_precision.py",
    "criterions/test_two_processes.py",
    "decoding/test_certificate.py",
    "decoding/test_exact.py",
    "decoding/test_mbr.py",
    "functional/test_entmax_alpha_tensor.py",
    "functional/test_gradients.py",
    "functional/test_large_alpha.py",
    "functional/test_loss_gradients.py",
    "functional/test_properties.py",
    "functional/test_reference.py",
    "functional/test_scripting.py",
    "functional/test_vocabulary_parallel.py",
    "kernels/test_memory.py",
    "kernels/test_native.py",
    "kernels/test_operators.py",
    "test_100_000_classes",
    "test_16_bit_errs_by_its_own_rounding_only",
    "test_a_broken_row_is_nan_and_stays_alone",
    "test_a_full_disk",
    "test_a_million_classes",
    "test_a_million_near_uniform_classes",
    "test_a_scheduled_model_is_scripted_with_its_present_alphas",
    "test_adaptive_softmax_is_refused_with_the_way_out",
    "test_an_arch_registered_later_gets_a_twin",
    "test_an_unknown_repair_is_said",
    "test_any_number_of_rows",
    "test_arch_builds_with_the_stock_parameters",
    "test_broken_and_ignored_rows",
    "test_equals_the_plain_recomputation",
    "test_every_number_of_200_models_is_inside_its_bounds",
    "test_float64_equals_the_oracle",
    "test_gradcheck",
    "test_gradient",
    "test_ignored_rows_count_nothing",
    "test_loss_backward",
    "test_loss_is_never_negative",
    "test_many_rows_are_solved_like_few",
    "test_modules_imported_later_read_literals",
    "test_nearly_even_rows_lose_nothing",
    "test_no_column_of_the_support_is_lost",
    "test_no_dead_hypothesis_and_no_crash_on_random_models",
    "test_no_name_of_ours_is_hidden_by_an_attribute_of_fairseq",
    "test_only_some_inputs_need_gradients",
    "test_other_formats",
    "test_repairs_are_not_told_unasked",
    "test_repairs_can_be_switched_off",
    "test_samples_have_the_model_s_frequencies",
    "test_script",
    "test_script_probs",
    "test_solve_loss",
    "test_statistics_equal_brute_force",
    "test_steps_are_enough",
    "test_the_order_of_imports_does_not_matter",
    "test_the_risk_falls",
    "test_the_same_bits_every_time_and_on_any_number_of_threads",
    "test_the_scores_of_all_rows_never_exist",
    "test_threads_are_those_of_torch",
    "test_torchscript_compiles_the_stock_search",
    "test_truncated_samples_have_renormalised_frequencies",
    "test_twenty_steps_lower_the_loss",
    "test_twin_has_the_stock_parameters_and_sparse_parts",
    "test_waits",
    "test_without_libraries_torch_does_it",
)
# in a test's parameters: a length of 1,000 or more, 16-bit scores, the builds of the kernels that
# are not chosen here or are slower
LONG = re.compile(r"(^|-)(1\d{3,}|b?float16|baseline|avx512)(-|$)")


def is_slow(nodeid: str) -> bool:
    """Whether a test, as ``folder/file.py::test[parameters]``, is left out."""
    path, _, test = nodeid.partition("::")
    name, _, parameters = test.partition("[")
    return (
        path.endswith(SLOW)
        or name in SLOW
        or "16_bit" in name
        or bool(LONG.search(parameters.rstrip("]")))
    )
