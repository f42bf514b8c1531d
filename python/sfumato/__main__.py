from sfumato.launcher import main

main()
