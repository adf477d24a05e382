module perfpolicy.io/lab/pause

go 1.26
