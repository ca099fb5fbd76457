"""scikit-learn estimators, and tables for them."""
