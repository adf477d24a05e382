module perfpolicy.io/lab/backend

go 1.26.0
