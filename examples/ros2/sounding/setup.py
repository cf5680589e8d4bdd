from setuptools import setup

setup(
    name="sounding",
    version="0.1.0",
    packages=["sounding"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/sounding"]),
        ("share/sounding", ["package.xml"]),
        ("share/sounding/launch", ["launch/sounding.launch.py"]),
        ("share/sounding/config", ["config/sounding.yaml"]),
    ],
    install_requires=["avsbg"],
    zip_safe=True,
    entry_points={"console_scripts": ["node = sounding.node:main"]},
)
