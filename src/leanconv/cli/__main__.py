from leanconv.cli import main

main()
