from jaxnets.cli import main

main()
