from django.urls import include, path

urlpatterns = [
    path("", include("myapp_infra.urls")),
    path("", include("myapp_system.urls")),
    path("", include("accounts.urls")),
]
