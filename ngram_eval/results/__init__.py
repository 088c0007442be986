"""What people look at: tables, result files, pages, comparisons, one prediction explained."""
